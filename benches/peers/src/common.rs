//! What the modules shared with the examples need of theirs: errors in one line, reading a file.

use std::path::{Path, PathBuf};

use wgconv::reference::ReferenceError;

/// What can go wrong here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file that can be read and whose contents are no use.
    #[error("{}: {reason}", .path.display())]
    Contents { path: PathBuf, reason: String },
    /// wgconv, on the device.
    #[error(transparent)]
    Gpu(#[from] wgconv::Error),
    /// wgconv's CPU reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Anything else, burn's failures among it.
    #[error("{0}")]
    Failed(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A whole file's bytes.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

/// A message on one line.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
