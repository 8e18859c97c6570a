//! The folder for what outlives a process, and how files get there.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where what outlives a process is kept: compiled pipelines, and what [`Tuning::Measure`](crate::Tuning::Measure) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// In the folder that the environment variable `WGCONV_CACHE` names, nowhere where that is `off`, and in `wgconv` under the user's
    /// cache folder where it is not set (on Linux `~/.cache/wgconv`). The web has no files.
    #[default]
    User,
    /// In this folder, which is made where it is missing.
    Folder(PathBuf),
    /// Nowhere.
    Off,
}

impl Cache {
    /// The folder, where there is one.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        if cfg!(target_arch = "wasm32") {
            return None;
        }
        match self {
            Cache::User => match std::env::var_os("WGCONV_CACHE").filter(|value| !value.is_empty()) {
                Some(value) if value == "off" => None,
                Some(value) => Some(value.into()),
                None => user_folder(),
            },
            Cache::Folder(folder) => Some(folder.clone()),
            Cache::Off => None,
        }
    }
}

fn user_folder() -> Option<PathBuf> {
    #[cfg(not(target_arch = "wasm32"))]
    return dirs::cache_dir().map(|folder| folder.join("wgconv"));
    #[cfg(target_arch = "wasm32")]
    None
}

/// Writes a file of the folder in one step: whoever reads it meanwhile finds the old contents or the new ones.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let failed = |reason: String| Error::File { path: path.to_path_buf(), reason };
    #[cfg(not(target_arch = "wasm32"))]
    {
        use std::io::Write as _;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| tempfile::NamedTempFile::new_in(folder))
            .and_then(|mut file| file.write_all(contents).map(|()| file))
            .and_then(|file| file.persist(path).map_err(|error| error.error));
        written.map(drop).map_err(|error| failed(error.to_string()))
    }
    #[cfg(target_arch = "wasm32")]
    Err(failed(format!("{} bytes and no files on the web", contents.len())))
}

/// A file name that says what it is for: whatever is neither letter nor digit becomes a hyphen.
pub(crate) fn file_name(parts: &[&str], extension: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '.' { c } else { '-' };
    let words = parts.iter().flat_map(|part| part.split_whitespace()).map(|word| word.chars().map(plain).collect());
    format!("{}.{extension}", words.collect::<Vec<String>>().join("_"))
}
