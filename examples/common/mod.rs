//! What the examples share: opening the adapter, reading safetensors and pictures, errors in one line.
#![allow(dead_code)] // Each example uses its part.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use half::f16;
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::{Dtype, SafeTensors};
use wgconv::ndarray::{ArrayD, IxDyn};
use wgconv::reference::ReferenceError;
use wgconv::{Gpu, wgpu};

/// What can go wrong in an example.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// Not a safetensors file, or only the beginning of one.
    #[error("{}: not a whole safetensors file: {reason}", .path.display())]
    Safetensors { path: PathBuf, reason: String },
    /// A tensor whose element type is neither f32 nor f16.
    #[error("{}: {tensor}: expected F32 or F16, got {got}", .path.display())]
    Dtype { path: PathBuf, tensor: String, got: String },
    /// A tensor that the file should have.
    #[error("{}: no tensor named {tensor}", .path.display())]
    NoTensor { path: PathBuf, tensor: String },
    /// A tensor of a shape that its use does not allow.
    #[error("{}: {tensor}: expected shape {expected:?}, got {got:?}", .path.display())]
    Shape { path: PathBuf, tensor: String, expected: Vec<usize>, got: Vec<usize> },
    /// Not a picture, or only the beginning of one.
    #[error("{}: not a whole picture: {reason}", .path.display())]
    Picture { path: PathBuf, reason: String },
    /// A file that can be read and whose contents are no use.
    #[error("{}: {reason}", .path.display())]
    Contents { path: PathBuf, reason: String },
    /// The library, on the GPU.
    #[error(transparent)]
    Gpu(#[from] wgconv::Error),
    /// The library's CPU reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A result that is not what the example promises.
    #[error("{0}")]
    Failed(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The exit code of an example: 1 after one line on stderr where it failed.
pub fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line: Vec<String> = error.to_string().split_whitespace().map(str::to_string).collect();
            eprintln!("error: {}", line.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// Opens the adapter whose name contains `adapter`, else the one that `WGCONV_ADAPTER` names, else the most powerful. Where the
/// machine has none at all, says so with the remedy and gives `None`: the caller then runs the CPU reference.
pub fn open_gpu(adapter: Option<&str>) -> Result<Option<Gpu>> {
    let mut builder = Gpu::builder().adapter_from_env();
    if let Some(name) = adapter {
        builder = builder.adapter(name);
    }
    match builder.build_blocking() {
        Err(wgconv::Error::NoAdapter { found, .. }) if found.is_empty() => {
            say_no_adapter();
            Ok(None)
        }
        opened => Ok(Some(opened?)),
    }
}

/// The line for a machine without an adapter.
pub fn say_no_adapter() {
    eprintln!(
        "no GPU adapter found, the CPU reference runs instead; remedy: install a Vulkan driver \
         (Debian and Ubuntu: `cargo xtask setup` installs a software one)"
    );
}

/// Name, backend and driver of an adapter, on one line.
pub fn describe(info: &wgpu::AdapterInfo) -> String {
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ");
    let parts = [info.name.as_str(), &format!("{:?}", info.backend), driver.trim()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// A progress bar on stderr, which shows nothing where that is no terminal. Its message names what is being done.
pub fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{bar:32.cyan/dim} {pos:>4}/{len} {elapsed:>4} {wide_msg}") {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar
}

/// The same for work whose length nobody knows.
pub fn busy(message: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// A time with a unit that gives it three digits or so.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// The middle value; 0 of none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A file of the examples' data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

/// A whole file's bytes.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

/// Decodes a picture, whatever its format and whatever its name says.
pub fn load_picture(path: &Path) -> Result<image::DynamicImage> {
    image::load_from_memory(&read(path)?)
        .map_err(|error| Error::Picture { path: path.to_path_buf(), reason: error.to_string() })
}

/// Says so where no picture can be written to `path`: before the work rather than after it.
pub fn check_place(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let unfit = match folder {
        Some(folder) if !folder.is_dir() => Some("its folder does not exist"),
        _ => path.is_dir().then_some("this is a folder"),
    };
    match unfit {
        Some(reason) => {
            Err(Error::Contents { path: path.to_path_buf(), reason: format!("cannot write the picture: {reason}") })
        }
        None => Ok(()),
    }
}

/// Writes a picture as PNG.
pub fn save_picture(picture: &image::RgbImage, path: &Path) -> Result<()> {
    let unwritable = |error: image::ImageError| Error::Contents { path: path.to_path_buf(), reason: error.to_string() };
    picture.save_with_format(path, image::ImageFormat::Png).map_err(unwritable)
}

/// Prints a line; a reader that has gone is an error and no panic.
pub fn say(out: &mut impl Write, line: impl std::fmt::Display) -> Result<()> {
    writeln!(out, "{line}").map_err(|source| Error::Io { path: "standard output".into(), source })
}

/// Opens a file for what is going to be measured: before the work, which must not be lost.
pub fn create(path: Option<&Path>) -> Result<Option<(File, &Path)>> {
    let Some(path) = path else { return Ok(None) };
    let file = File::create(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    Ok(Some((file, path)))
}

/// Writes a report into a file of [`create`].
pub fn write_json(file: Option<(File, &Path)>, report: &impl serde::Serialize) -> Result<()> {
    let Some((mut file, path)) = file else { return Ok(()) };
    let failed = |source| Error::Io { path: path.to_path_buf(), source };
    let text = serde_json::to_string_pretty(report).map_err(|error| failed(error.into()))?;
    writeln!(file, "{text}").map_err(failed)
}

/// The largest absolute difference; NaN where there is a NaN or where the shapes differ.
pub fn difference(got: &ArrayD<f64>, want: &ArrayD<f64>) -> f64 {
    if got.shape() != want.shape() {
        return f64::NAN;
    }
    // f64::max would leave a NaN out.
    let larger = |most: f64, error: f64| if most.is_nan() || error <= most { most } else { error };
    got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, larger)
}

/// The tensors of a safetensors file, widened to f32, and its metadata.
#[derive(Debug)]
pub struct Archive {
    pub path: PathBuf,
    pub tensors: BTreeMap<String, ArrayD<f32>>,
    pub metadata: HashMap<String, String>,
}

impl Archive {
    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Result<&ArrayD<f32>> {
        let missing = || Error::NoTensor { path: self.path.clone(), tensor: name.to_string() };
        self.tensors.get(name).ok_or_else(missing)
    }

    /// The same, of which the shape is known.
    pub fn get_shaped(&self, name: &str, expected: &[usize]) -> Result<&ArrayD<f32>> {
        let tensor = self.get(name)?;
        if tensor.shape() != expected {
            return Err(Error::Shape {
                path: self.path.clone(),
                tensor: name.to_string(),
                expected: expected.to_vec(),
                got: tensor.shape().to_vec(),
            });
        }
        Ok(tensor)
    }
}

/// Reads a safetensors file of f32 and f16 tensors.
pub fn load_safetensors(path: &Path) -> Result<Archive> {
    let bytes = read(path)?;
    let broken = |reason: String| Error::Safetensors { path: path.to_path_buf(), reason };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => {
                let (tensor, got) = (name.to_string(), other.to_string());
                return Err(Error::Dtype { path: path.to_path_buf(), tensor, got });
            }
        };
        let array = ArrayD::from_shape_vec(IxDyn(view.shape()), values);
        tensors.insert(name.to_string(), array.map_err(|error| broken(format!("{name}: {error}")))?);
    }
    Ok(Archive { path: path.to_path_buf(), tensors, metadata: header.metadata().clone().unwrap_or_default() })
}
