//! Measures known layers of the literature on a GPU and checks every result: `cargo run --example layers`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::{Error, Result};
use table::Tier;

pub(crate) mod app;
#[path = "../common/mod.rs"]
pub(crate) mod common;
#[path = "../verify/compare.rs"]
pub(crate) mod compare;
#[path = "../verify/launch.rs"]
#[allow(dead_code)] // Tests and `verify` use it too.
pub(crate) mod launch;
pub(crate) mod measure;
#[path = "../verify/operation.rs"]
#[allow(dead_code)]
pub(crate) mod operation;
pub(crate) mod roofline;
pub(crate) mod table;

/// Measures the layers of a table on the GPU and compares every result with the CPU reference.
///
/// Columns: the kernel taken; the time of the first call, which compiles what no layer before it used; the median time of recording,
/// submitting and waiting for a call; the median time of its dispatches by the device's clock. GFLOP/s and GB/s are of the
/// dispatches' time where the adapter has timestamps, else of the wall time; the bytes are those of every argument and the output
/// once. The exit code is 1 where a result is off by more than its derived bound.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Table of layers in the form of benches/layers.json, which is the default.
    file: Option<PathBuf>,
    /// Write the numbers to this file.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Only layers of this tier; by default all, and on a software adapter those for a CPU.
    #[arg(long)]
    tier: Option<Tier>,
    /// Only layers whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Measure this kernel, on the layers that it can take, or `all` that can take a layer; by default the one that is chosen.
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Take the adapter whose name contains this; otherwise the environment variable WGCONV_ADAPTER chooses.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Calls to take the median of.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// What the example `peaks` wrote with --json: adds the least time that the operations and the least bytes would take at those
    /// peaks, which of the two it is, and how much of it is reached.
    #[arg(long, value_name = "FILE")]
    peaks: Option<PathBuf>,
    /// Leave out the comparison with the CPU reference.
    #[arg(long)]
    skip_check: bool,
}

fn main() -> ExitCode {
    common::exit(run(Options::parse()))
}

fn run(options: Options) -> Result<()> {
    let gpu = common::open_gpu(options.adapter.as_deref())?;
    let request = app::Request {
        table: options.file,
        tier: options.tier,
        filter: options.filter,
        kernel: options.kernel,
        repeat: options.repeat.into(),
        check: !options.skip_check,
        peaks: options.peaks,
        json: options.json,
    };
    match app::layers(&request, gpu.as_ref(), &mut std::io::stdout())? {
        0 => Ok(()),
        failed => Err(Error::Failed(format!("{failed} layers failed"))),
    }
}
