//! What comes is written to the candidate's file, counted, hashed, and bounded in size.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::error::{Error, Kind, Result};
use crate::upgrade::trust::hex;

/// How large a signature or a list of checksums may be, and what tells of a release.
pub(crate) const MAX_TEXT: u64 = 4 * 1024 * 1024;

/// Where the bytes go.
pub(crate) struct Sink {
    file: File,
    path: PathBuf,
    hash: Sha256,
    pub(crate) length: u64,
    limit: u64,
}

impl Sink {
    pub(crate) fn new(file: File, path: PathBuf, limit: u64) -> Self {
        Self { file, path, hash: Sha256::new(), length: 0, limit }
    }

    pub(crate) fn announced(&self, length: u64) -> std::result::Result<(), String> {
        let limit = self.limit;
        if length > limit { Err(format!("{length} bytes, and a program may have {limit}")) } else { Ok(()) }
    }

    pub(crate) async fn take(&mut self, chunk: &[u8], what: &str) -> Result<()> {
        self.length += chunk.len() as u64;
        if self.length > self.limit {
            let limit = self.limit;
            return Err(Error::new(
                Kind::Candidate,
                format!("{what}: more than {limit} bytes, which a program may have"),
            ));
        }
        self.hash.update(chunk);
        self.file.write_all(chunk).await.map_err(|e| self.failed(e))
    }

    /// Ends the file when everything is in it, and returns its SHA-256.
    pub(crate) async fn end(&mut self) -> Result<String> {
        self.file.flush().await.map_err(|e| self.failed(e))?;
        Ok(hex(&std::mem::take(&mut self.hash).finalize()))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::os(format!("{} cannot be written", self.path.display()), error)
    }
}
