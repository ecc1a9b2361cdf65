//! `files:` of a job: put into its directory afresh for every step, so that none finds what another made of them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use executr_executors::contract::{ExecutorError, FileToPut, Sandbox};
use executr_expressions::{Context, interpolate};
use executr_spec::Digest;
use executr_spec::workflow::{FileContent, SandboxFile};
use futures_util::StreamExt;

use super::artifacts::within;
use super::{Attempt, lost};
use crate::verdict::StepVerdict;

/// The most bytes of all files together that are blobs of the server: they are kept in memory for the steps to come.
const MOST: usize = 64 << 20;

/// Blobs of the server that are files of the job, once they were read.
#[derive(Debug, Default)]
pub(super) struct FileBlobs {
    read: HashMap<Digest, Bytes>,
    bytes: usize,
}

impl FileBlobs {
    fn put(&mut self, digest: Digest, bytes: Bytes) {
        self.bytes += bytes.len();
        self.read.insert(digest, bytes);
    }
}

impl Attempt<'_> {
    /// Whether the job has files.
    pub(super) fn has_files(&self) -> bool {
        self.spec.workflow.as_ref().is_some_and(|workflow| !workflow.files.is_empty())
    }

    /// Puts the job's files into its directory.
    ///
    /// # Errors
    /// When one can't be had or written: the step fails.
    pub(super) async fn place_files(
        &mut self,
        sandbox: &mut dyn Sandbox,
        context: &Context,
    ) -> Result<(), StepVerdict> {
        let Some(workflow) = self.spec.workflow.as_deref().filter(|workflow| !workflow.files.is_empty()) else {
            return Ok(());
        };
        let mut contents = Vec::with_capacity(workflow.files.len());
        for (path, file) in &workflow.files {
            let wrong = |problem: String| StepVerdict::failed(format!("files.{path}: {problem}"), false);
            let below = within(path).filter(|below| !below.as_os_str().is_empty());
            let below = below.ok_or_else(|| wrong("leads out of the job directory".to_owned()))?;
            let content = self.content(file, context).await?.map_err(wrong)?;
            contents.push(FileToPut { path: below, content, mode: file.mode.0 });
        }
        sandbox.put_files(contents).await.map_err(|error| match error {
            ExecutorError::File { .. } => StepVerdict::failed(format!("files.{error}"), false),
            error => lost(&error),
        })
    }

    async fn content(&mut self, file: &SandboxFile, context: &Context) -> Result<Result<Bytes, String>, StepVerdict> {
        Ok(match &file.content {
            FileContent::Text(text) => match interpolate(text, context) {
                Ok(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
                Err(error) => Err(error.to_string()),
            },
            FileContent::Base64(text) => {
                let text: String = text.split_ascii_whitespace().collect();
                STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("is no base64: {error}"))
            }
            FileContent::Blob(digest) => match self.file_blobs.read.get(digest) {
                Some(bytes) => Ok(bytes.clone()),
                None => {
                    let (remote, deadline) = (self.remote(), self.job_deadline());
                    let room = MOST - self.file_blobs.bytes;
                    let read = async {
                        let mut stream = remote.read(*digest, 0).await.map_err(|error| error.to_string())?;
                        let mut bytes = Vec::new();
                        while let Some(piece) = stream.next().await {
                            bytes.extend_from_slice(&piece.map_err(|error| error.to_string())?);
                            if bytes.len() > room {
                                return Err(format!(
                                    "with the files before it, it has more than {MOST} bytes; make it an artifact"
                                ));
                            }
                        }
                        let found = Digest::of(&bytes);
                        if found == *digest { Ok(Bytes::from(bytes)) } else { Err(format!("arrived as {found}")) }
                    };
                    let bytes = self.wait_for(read, deadline).await.map_err(StepVerdict::ended_early)?;
                    if let Ok(bytes) = &bytes {
                        self.file_blobs.put(*digest, bytes.clone());
                    }
                    bytes
                }
            },
        })
    }
}
