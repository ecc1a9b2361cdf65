//! The calls of `service Files`.
//!
//! Each may take the kernel long, so it has a thread of its own while it lasts.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executr_agent_protocol::v1::files_server::Files;
use executr_agent_protocol::v1::{
    Failure, MakeDirectoryRequest, MakeDirectoryResponse, PutFilesRequest, PutFilesResponse, ReadFileRequest,
    ReadFileResponse, RemoveDirectoryRequest, RemoveDirectoryResponse, read_file_response,
};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use tonic::{Request, Response, Status};

use crate::directory;
use crate::identity::{self, Identity};

/// Most bytes of a file in one answer.
const MOST: u64 = 32 * 1024 * 1024;

/// The service.
#[derive(Clone)]
pub(super) struct FileCalls;

#[tonic::async_trait]
impl Files for FileCalls {
    async fn make_directory(
        &self,
        request: Request<MakeDirectoryRequest>,
    ) -> Result<Response<MakeDirectoryResponse>, Status> {
        let request = request.into_inner();
        let path = absolute(&request.path)?;
        let failure = apart(move || make(&path, request.mode, &request.user).err()).await?;
        Ok(Response::new(MakeDirectoryResponse { failure }))
    }

    async fn remove_directory(
        &self,
        request: Request<RemoveDirectoryRequest>,
    ) -> Result<Response<RemoveDirectoryResponse>, Status> {
        let path = absolute(&request.get_ref().path)?;
        let failure = apart(move || directory::remove(&path).err().map(|error| (&error).into())).await?;
        Ok(Response::new(RemoveDirectoryResponse { failure }))
    }

    async fn put_files(&self, request: Request<PutFilesRequest>) -> Result<Response<PutFilesResponse>, Status> {
        let request = request.into_inner();
        let directory = absolute(&request.directory)?;
        let failure = apart(move || put(&directory, &request).err()).await?;
        Ok(Response::new(PutFilesResponse { failure }))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Result<Response<ReadFileResponse>, Status> {
        let request = request.into_inner();
        let path = absolute(&request.path)?;
        let answer = apart(move || match read(&path, request.limit.min(MOST), request.remove) {
            Ok(content) => read_file_response::Answer::Content(content.into()),
            Err(Errno::NOENT) => read_file_response::Answer::Missing(true),
            Err(errno) => read_file_response::Answer::Failure(unreadable(&path, errno)),
        });
        Ok(Response::new(ReadFileResponse { answer: Some(answer.await?) }))
    }
}

fn absolute(path: &[u8]) -> Result<PathBuf, Status> {
    let path = Path::new(OsStr::from_bytes(path));
    if path.is_absolute() && !path.as_os_str().as_bytes().contains(&0) {
        return Ok(path.to_owned());
    }
    Err(Status::invalid_argument("a path must be absolute, and without a zero byte"))
}

/// Does something that may take long.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::aborted("the agent is ending; call again when there is another one"))
}

fn make(path: &Path, mode: u32, user: &str) -> Result<(), Failure> {
    let identity = whose(user)?;
    directory::create(path).map_err(|error| Failure::from(&error))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode & 0o7777))
        .map_err(|source| Failure::from(&directory::DirectoryError::Create { path: path.into(), source }))?;
    give(path, identity.as_ref())
}

fn put(directory: &Path, request: &PutFilesRequest) -> Result<(), Failure> {
    let identity = whose(&request.user)?;
    for file in &request.files {
        let path = directory.join(OsStr::from_bytes(&file.path));
        directory::write_file(&path, &file.content, file.mode).map_err(|error| Failure::from(&error))?;
        give(&path, identity.as_ref())?;
    }
    Ok(())
}

fn whose(user: &str) -> Result<Option<Identity>, Failure> {
    if user.is_empty() {
        return Ok(None);
    }
    Identity::find(user).map(Some).map_err(|error| (&error).into())
}

fn give(path: &Path, identity: Option<&Identity>) -> Result<(), Failure> {
    let Some(identity) = identity else { return Ok(()) };
    identity::give(path, identity).map_err(|error| (&error).into())
}

/// A task may have put anything there: nothing but a regular file is read, and nothing is waited for.
fn read(path: &Path, limit: u64, remove: bool) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut content = Vec::new();
    let read = std::fs::File::from(file).take(limit + 1).read_to_end(&mut content);
    read.map_err(|error| super::errno(&error))?;
    if remove {
        rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::empty())?;
    }
    Ok(content)
}

fn unreadable(path: &Path, errno: Errno) -> Failure {
    let advice = match errno {
        Errno::INVAL => "it is not a file".to_owned(),
        Errno::LOOP => "it is a symbolic link, which isn't followed".to_owned(),
        _ => errno.to_string(),
    };
    Failure {
        errno: errno.raw_os_error(),
        message: format!("{} can't be read: {advice}; see what was put there", path.display()),
        path: path.as_os_str().as_bytes().to_vec().into(),
    }
}
