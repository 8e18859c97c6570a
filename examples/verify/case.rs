//! A case file: an operation with its arrays and the output that it should have. `docs/case-format.md` describes the form.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use wgconv::ndarray::ArrayD;
use wgconv::reference::BorderMode;

use super::common::{Archive, Error, Result, load_safetensors};
use super::operation::{Arrays, Operation, Operator};

/// One case.
pub struct Case {
    pub operation: Operation,
    pub arrays: Arrays,
    pub output: ArrayD<f32>,
}

impl Case {
    /// Reads a case and checks that its parts fit each other.
    pub fn read(path: &Path) -> Result<Self> {
        let mut archive = load_safetensors(path)?;
        let operation = read_operation(&archive)?;
        let [input, weight, output] = ["input", "weight", "output"].map(|name| archive.get(name).map(ArrayD::shape));
        let (input, weight, output) = (input?, weight?, output?);
        let expected = operation.output_shape(input, weight)?;
        if output != expected {
            let reason =
                format!("output: expected shape {expected:?}, which {input:?} and {weight:?} make, got {output:?}");
            return Err(Error::Contents { path: path.to_path_buf(), reason });
        }
        let mut take = |name: &str| archive.tensors.remove(name);
        let missing = |name: &str| Error::NoTensor { path: path.to_path_buf(), tensor: name.to_string() };
        Ok(Self {
            operation,
            output: take("output").ok_or_else(|| missing("output"))?,
            arrays: Arrays {
                input: take("input").ok_or_else(|| missing("input"))?,
                weight: take("weight").ok_or_else(|| missing("weight"))?,
                bias: take("bias"),
                offset: take("offset"),
                mask: take("mask"),
            },
        })
    }
}

/// A file's name without its ending.
pub fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The safetensors files under a path, sorted; the path itself where it is no folder.
pub fn find(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let entries = std::fs::read_dir(path).map_err(io)?.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() && !path.is_symlink() {
            files.extend(find(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    Ok(files)
}

fn read_operation(archive: &Archive) -> Result<Operation> {
    let wrong = |reason: String| Error::Contents { path: archive.path.clone(), reason };
    let operator = match metadata::<String>(archive, "op")?.as_deref() {
        Some("conv") => Operator::Conv,
        Some("conv_transpose") => Operator::ConvTranspose,
        Some("deform_conv") => Operator::DeformConv,
        Some("involution") => Operator::Involution,
        Some(other) => {
            let known = "conv, conv_transpose, deform_conv or involution";
            return Err(wrong(format!("op: expected {known}, got {other}")));
        }
        None => return Err(wrong("op: missing from the metadata".into())),
    };
    let (input, weight) = (archive.get("input")?.shape(), archive.get("weight")?.shape());
    let rank = input.len().saturating_sub(2);
    if !(1..=3).contains(&rank) {
        return Err(wrong(format!("input: expected [N, C] and 1 to 3 spatial axes, got shape {input:?}")));
    }
    if let Some(stated) = metadata::<usize>(archive, "rank")?.filter(|&stated| stated != rank) {
        return Err(wrong(format!("rank: expected {rank}, as input has spatial axes, got {stated}")));
    }
    // An involution's weight may come without the kernel's axes; any other ends in them.
    let of_weight = match (operator, weight.len()) {
        (Operator::Involution, 6) => Some(weight[2..4].to_vec()),
        (Operator::Involution, _) => None,
        (_, axes) if axes == rank + 2 => Some(weight[2..].to_vec()),
        _ => return Err(wrong(format!("weight: expected {} axes, got shape {weight:?}", rank + 2))),
    };
    let kernel = match (metadata::<Vec<usize>>(archive, "kernel")?, of_weight) {
        (Some(stated), Some(kernel)) if stated != kernel => {
            return Err(wrong(format!("kernel: expected {kernel:?}, as weight has it, got {stated:?}")));
        }
        (Some(kernel), _) | (None, Some(kernel)) => kernel,
        (None, None) => return Err(wrong("kernel: missing from the metadata, and weight does not tell it".into())),
    };
    let list = |key: &str, length: usize, default: usize| -> Result<Vec<usize>> {
        let values = metadata::<Vec<usize>>(archive, key)?.unwrap_or_else(|| vec![default; length]);
        if values.len() != length {
            return Err(wrong(format!("{key}: expected {length} values, got {values:?}")));
        }
        Ok(values)
    };
    if kernel.len() != rank {
        return Err(wrong(format!("kernel: expected {rank} values, got {kernel:?}")));
    }
    let pads = list("pads", 2 * rank, 0)?;
    let number = |key| metadata::<usize>(archive, key).map(|value| value.unwrap_or(1));
    let border = match metadata::<String>(archive, "padding_mode")?.as_deref() {
        None | Some("zeros") => BorderMode::Zeros,
        Some("reflect") if operator == Operator::Conv => BorderMode::Reflect,
        Some("replicate") if operator == Operator::Conv => BorderMode::Replicate,
        Some("circular") if operator == Operator::Conv => BorderMode::Circular,
        Some(other) => {
            let known = "zeros, or for conv reflect, replicate or circular";
            return Err(wrong(format!("padding_mode: expected {known}, got {other}")));
        }
    };
    Ok(Operation {
        operator,
        stride: list("stride", rank, 1)?,
        dilation: list("dilation", rank, 1)?,
        output_padding: list("output_padding", rank, 0)?,
        pads: pads[..rank].iter().copied().zip(pads[rank..].iter().copied()).collect(),
        groups: number("groups")?,
        offset_groups: number("offset_groups")?,
        kernel,
        border,
        flip_kernel: false,
        fast_math: false,
    })
}

/// A metadata value, which is a JSON text; `None` where it is not there or null.
fn metadata<T: DeserializeOwned>(archive: &Archive, key: &str) -> Result<Option<T>> {
    let Some(text) = archive.metadata.get(key) else { return Ok(None) };
    serde_json::from_str(text).map_err(|error| {
        let reason = format!("{key}: the metadata value {text:?} is not the JSON text that it should be: {error}");
        Error::Contents { path: archive.path.clone(), reason }
    })
}
