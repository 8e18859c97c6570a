//! What `verify` does, apart from reading its arguments.

use std::io::Write;
use std::path::PathBuf;

use wgconv::Gpu;

use super::case::{Case, find, name_of};
use super::common::{Error, Result, progress};
use super::compare::{Comparison, compare};
use super::launch::{Tensors, launch};
use super::operation::{At, DOUBLE, SINGLE};

/// How many cases there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
}

/// Runs every case under the paths, on the GPU or without one on the CPU reference, and writes one line each and the count.
pub fn verify(paths: &[PathBuf], gpu: Option<&Gpu>, out: &mut impl Write) -> Result<Count> {
    let mut files = Vec::new();
    for path in paths {
        let found = find(path)?;
        if found.is_empty() {
            let reason = "no file that ends in .safetensors".to_string();
            return Err(Error::Contents { path: path.clone(), reason });
        }
        files.extend(found);
    }
    let width = files.iter().map(|file| name_of(file).chars().count()).max().unwrap_or(0);
    let bar = progress(files.len() as u64);
    let mut count = Count::default();
    for file in &files {
        let name = name_of(file);
        bar.set_message(name.clone());
        let line = match Case::read(file).and_then(|case| check(&case, gpu)) {
            Ok((kernel, result)) if result.passed => {
                count.passed += 1;
                let Comparison { error, bound, .. } = result;
                format!("ok    {name:width$}  {kernel:24}  max error {error:9.2e}  bound {bound:9.2e}")
            }
            Ok((kernel, Comparison { error, bound, index, got, want, .. })) => {
                count.failed += 1;
                format!(
                    "FAIL  {name}: {kernel}: error {error:.2e} over bound {bound:.2e} at {index:?}: got {got}, want {want}"
                )
            }
            Err(error) => {
                count.failed += 1;
                format!("FAIL  {name}: {}", one_line(&error))
            }
        };
        bar.suspend(|| writeln!(out, "{line}")).map_err(cannot_write)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    writeln!(out, "{} passed, {} failed", count.passed, count.failed).map_err(cannot_write)?;
    Ok(count)
}

/// Runs one case; the operator with the kernel taken, and the comparison with the stored output.
fn check(case: &Case, gpu: Option<&Gpu>) -> Result<(String, Comparison)> {
    let Case { operation, arrays, .. } = case;
    let (kernel, unit, got): (&str, f64, Vec<f64>) = match gpu {
        Some(gpu) => {
            let (operator, tensors) = (launch(operation)?, Tensors::upload(gpu, arrays)?);
            let result = operator.forward(&tensors)?.to_array()?;
            let plan = operator.plan(&tensors)?;
            (plan.kernel(), SINGLE, result.iter().map(|&value| f64::from(value)).collect())
        }
        None => ("reference", DOUBLE, operation.reference(arrays, At::All)?),
    };
    Ok((format!("{} {kernel}", operation.operator.name()), case.judge(&got, kernel, unit)?))
}

impl Case {
    /// Compares the result of a kernel, computed with such a unit roundoff, with the stored output, which was computed in f64 and rounded once.
    pub fn judge(&self, got: &[f64], kernel: &str, unit: f64) -> Result<Comparison> {
        let Self { operation, arrays, output } = self;
        let magnitude = operation.magnitude(arrays, kernel, At::All)?;
        let stored = operation.magnitude(arrays, "reference", At::All)?;
        let slack = operation.coordinate_slack(arrays)?;
        let want: Vec<f64> = output.iter().map(|&value| f64::from(value)).collect();
        let channel_len: usize = output.shape()[2..].iter().product();
        let bounds = magnitude.bound(unit).into_iter().zip(stored.bound(DOUBLE)).zip(&want).enumerate();
        let bounds = bounds.map(|(i, ((of_result, of_stored), stored))| {
            let rounding = SINGLE * stored.abs() + f64::from(f32::MIN_POSITIVE) * SINGLE;
            of_result + of_stored + rounding + slack.get(i / channel_len % output.shape()[1]).copied().unwrap_or(0.0)
        });
        let bounds: Vec<f64> = bounds.collect();
        Ok(compare(got, &want, &bounds, output.shape(), |i| i))
    }
}

fn one_line(error: &Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::Io { path: "standard output".into(), source: error }
}
