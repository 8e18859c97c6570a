//! Runs cases from PyTorch, or from anywhere, on the GPU and compares: `cargo run --example verify -- tests/golden`.
//!
//! A case is a safetensors file with the arguments, the options and the output that they should give; `docs/case-format.md` describes it
//! and shows how to write one from PyTorch.

use std::path::PathBuf;
use std::process::ExitCode;

use app::Count;
use clap::Parser;
use common::Result;
use wgconv::Gpu;

pub(crate) mod app;
pub(crate) mod case;
#[path = "../common/mod.rs"]
pub(crate) mod common;
pub(crate) mod compare;
#[allow(dead_code)] // Tests and measurements use it too.
pub(crate) mod launch;
#[allow(dead_code)]
pub(crate) mod operation;

/// Runs cases (safetensors files in the form of docs/case-format.md) and compares each result with the output in the file.
///
/// Prints one line a case with the largest error and its bound, then `N passed, N failed`; the exit code is 1 on any failure.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Case files, or folders to search for them.
    #[arg(required_unless_present = "list_adapters")]
    paths: Vec<PathBuf>,
    /// Run the CPU reference instead of the GPU.
    #[arg(long)]
    reference: bool,
    /// Take the adapter whose name contains this; otherwise the environment variable WGCONV_ADAPTER chooses.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// List the adapters of this machine, and stop.
    #[arg(long)]
    list_adapters: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        // The count of failures is the last line; nothing is to be said after it.
        Ok(Count { failed: 1.., .. }) => ExitCode::FAILURE,
        other => common::exit(other.map(|_| ())),
    }
}

fn run(options: &Options) -> Result<Count> {
    if options.list_adapters {
        list_adapters();
        return Ok(Count::default());
    }
    let gpu = if options.reference { None } else { common::open_gpu(options.adapter.as_deref())? };
    if let Some(gpu) = &gpu {
        eprintln!("{}", common::describe(&gpu.adapter_info()));
    }
    app::verify(&options.paths, gpu.as_ref(), &mut std::io::stdout())
}

fn list_adapters() {
    let adapters = pollster::block_on(Gpu::builder().list());
    if adapters.is_empty() {
        common::say_no_adapter();
    }
    for adapter in adapters {
        let info = adapter.get_info();
        println!("{:?}: {}", info.device_type, common::describe(&info));
    }
}
