//! Single files and directories where the agent is.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::connection::Wired;
use super::{Agent, AgentError};
use crate::MAX_MESSAGE;
use crate::driver::{Failure, File};
use crate::v1::files_client::FilesClient;
use crate::v1::{MakeDirectoryRequest, PutFilesRequest, ReadFileRequest, RemoveDirectoryRequest, read_file_response};

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// Its bytes, at most one more than asked for.
    Bytes(Bytes),
    /// There is none.
    Missing,
}

impl Agent {
    /// Makes a directory with exactly these permission bits, for `user` (whoever runs the agent when empty). Its parent must
    /// exist and it must not. The answer is about the directory.
    ///
    /// # Errors
    /// When the agent is lost. After a cut the directory may be there.
    pub async fn make_directory(
        &self,
        path: impl Into<PathBuf>,
        mode: u32,
        user: &str,
    ) -> Result<Result<(), Failure>, AgentError> {
        let request = MakeDirectoryRequest { path: bytes_of(path), mode, user: user.to_owned() };
        let mut client = files(self.wired().await?);
        let answer = client.make_directory(request).await.map_err(|status| AgentError::of(&status))?;
        Ok(done(answer.into_inner().failure))
    }

    /// Removes a directory with all it holds, without following symbolic links; one that doesn't exist is no error. The
    /// answer is about the directory.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn remove_directory(&self, path: impl Into<PathBuf>) -> Result<Result<(), Failure>, AgentError> {
        let path = bytes_of(path);
        self.ask(|wired| {
            let request = RemoveDirectoryRequest { path: path.clone() };
            async move { Ok(done(files(wired).remove_directory(request).await?.into_inner().failure)) }
        })
        .await
    }

    /// Writes files that don't exist yet, for `user`. Relative paths begin at `directory`. The answer is about the first that
    /// can't be written.
    ///
    /// # Errors
    /// When the agent is lost. After a cut the files may be there.
    pub async fn put_files(
        &self,
        directory: impl Into<PathBuf>,
        of: Vec<File>,
        user: &str,
    ) -> Result<Result<(), Failure>, AgentError> {
        let request = PutFilesRequest { directory: bytes_of(directory), files: of, user: user.to_owned() };
        let mut client = files(self.wired().await?);
        let answer = client.put_files(request).await.map_err(|status| AgentError::of(&status))?;
        Ok(done(answer.into_inner().failure))
    }

    /// Reads a file, at most `limit` bytes of it (32 MiB at most) and one more. The answer is about the file.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn read_file(
        &self,
        path: impl AsRef<Path>,
        limit: u64,
    ) -> Result<Result<FileContent, Failure>, AgentError> {
        let path = bytes_of(path.as_ref());
        let read = self.ask(|wired| {
            let request = ReadFileRequest { path: path.clone(), limit, remove: false };
            async move { Ok(files(wired).read_file(request).await?.into_inner().answer) }
        });
        Ok(match read.await? {
            Some(read_file_response::Answer::Content(content)) => Ok(FileContent::Bytes(content)),
            Some(read_file_response::Answer::Missing(_)) => Ok(FileContent::Missing),
            Some(read_file_response::Answer::Failure(failure)) => Err(failure.into()),
            None => return Err(AgentError::Protocol("an answer without a file".to_owned())),
        })
    }

    /// As [`Agent::read_file`], and removes it.
    ///
    /// # Errors
    /// When the agent is lost. After a cut the file may be gone.
    pub async fn take_file(
        &self,
        path: impl AsRef<Path>,
        limit: u64,
    ) -> Result<Result<FileContent, Failure>, AgentError> {
        let request = ReadFileRequest { path: bytes_of(path.as_ref()), limit, remove: true };
        let mut client = files(self.wired().await?);
        let answer = client.read_file(request).await.map_err(|status| AgentError::of(&status))?;
        Ok(match answer.into_inner().answer {
            Some(read_file_response::Answer::Content(content)) => Ok(FileContent::Bytes(content)),
            Some(read_file_response::Answer::Missing(_)) => Ok(FileContent::Missing),
            Some(read_file_response::Answer::Failure(failure)) => Err(failure.into()),
            None => return Err(AgentError::Protocol("an answer without a file".to_owned())),
        })
    }
}

fn files(wired: Wired) -> FilesClient<Wired> {
    FilesClient::with_origin(wired, Wired::origin())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

fn done(failure: Option<crate::v1::Failure>) -> Result<(), Failure> {
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

pub(super) fn bytes_of(path: impl Into<PathBuf>) -> Bytes {
    use std::os::unix::ffi::OsStringExt;
    path.into().into_os_string().into_vec().into()
}
