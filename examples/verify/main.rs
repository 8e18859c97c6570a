//! Runs cases from PyTorch, or from anywhere, on the GPU and compares: `cargo run --example verify -- tests/golden`.
//!
//! A case is a safetensors file with the arguments, the options and the output that they should give; `docs/case-format.md` describes it
//! and shows how to write one from PyTorch.
//!
//! `cargo run --release --example verify -- --random 1000` draws problems of all operators instead and runs each on every kernel that can take it.

use std::path::PathBuf;
use std::process::ExitCode;

use app::Count;
use clap::Parser;
use common::{Error, Result};
use wgconv::{Gpu, wgpu};

pub(crate) mod app;
pub(crate) mod case;
#[path = "../common/mod.rs"]
pub(crate) mod common;
pub(crate) mod compare;
#[allow(dead_code)] // Tests and measurements use it too.
pub(crate) mod launch;
#[allow(dead_code)]
pub(crate) mod operation;
pub(crate) mod random;

/// Runs cases (safetensors files in the form of docs/case-format.md) and compares each result with the output in the file.
///
/// Prints one line a case with the largest error and its bound, then `N passed, N failed`; the exit code is 1 on any failure.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Case files, or folders to search for them.
    #[arg(required_unless_present_any = ["list_adapters", "random"])]
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
    /// Draw so many problems of all operators, sizes and options, and run each on every kernel that can take it, with guards around all
    /// memory. A failure is one line with the least problem that fails alike and the arguments that repeat it.
    #[arg(long, value_name = "N", conflicts_with_all = ["paths", "reference"])]
    random: Option<u64>,
    /// What problems are drawn from: the same seed draws the same ones. A fresh one is taken, and printed, unless given.
    #[arg(long, requires = "random")]
    seed: Option<u64>,
    /// Draw these operators only, with commas between them, such as conv,deform_conv.
    #[arg(long, value_name = "LIST", requires = "random")]
    ops: Option<String>,
    /// Stop after so many minutes.
    #[arg(long, requires = "random")]
    minutes: Option<f64>,
    /// Run the problem of this number alone.
    #[arg(long, value_name = "NUMBER", requires = "random")]
    only: Option<u64>,
    /// Open the device with WebGPU's default limits, or with those and bindings of so many bytes, in which large tensors are bound in
    /// windows; the environment variable WGCONV_LIMITS does so too.
    #[arg(long, value_name = "default|BYTES", requires = "random")]
    limits: Option<String>,
    /// Cut dispatches of more operations than this; the environment variable WGCONV_MAX_WORK does so too.
    #[arg(long, value_name = "OPERATIONS", requires = "random")]
    max_work: Option<u64>,
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
    if let Some(count) = options.random {
        return run_random(options, count);
    }
    let gpu = if options.reference { None } else { common::open_gpu(options.adapter.as_deref())? };
    if let Some(gpu) = &gpu {
        eprintln!("{}", common::describe(&gpu.adapter_info()));
    }
    app::verify(&options.paths, gpu.as_ref(), &mut std::io::stdout())
}

fn run_random(options: &Options, count: u64) -> Result<Count> {
    let limits = options.limits.clone().or_else(|| std::env::var("WGCONV_LIMITS").ok().filter(|text| !text.is_empty()));
    let max_work = match (options.max_work, std::env::var("WGCONV_MAX_WORK")) {
        (None, Ok(text)) if !text.is_empty() => Some(parse_operations(&text)?),
        (given, _) => given,
    };
    let ops = options.ops.as_deref().map(random::problem::Op::list).transpose()?.unwrap_or_default();
    let mut repeat = String::new();
    if let Some(ops) = &options.ops {
        repeat.push_str(&format!(" --ops {ops}"));
    }
    let mut builder = Gpu::builder().adapter_from_env().guarded(true);
    if let Some(name) = &options.adapter {
        builder = builder.adapter(name);
        repeat.push_str(&format!(" --adapter \"{name}\""));
    }
    if let Some(limits) = limits {
        builder = builder.limits(parse_limits(&limits)?);
        repeat.push_str(&format!(" --limits {limits}"));
    }
    if let Some(operations) = max_work {
        builder = builder.max_work(operations);
        repeat.push_str(&format!(" --max-work {operations}"));
    }
    let gpu = builder.build_blocking()?;
    let most = options.minutes.map(|minutes| std::time::Duration::try_from_secs_f64(minutes * 60.0));
    let most = most.transpose().map_err(|error| Error::Failed(format!("--minutes: {error}")))?;
    let seed = options.seed.unwrap_or_else(fresh_seed);
    println!("seed {seed}");
    let request = random::Request { count, seed, ops, most, only: options.only, repeat, tamper: None };
    let summary = random::random(&request, &gpu, &mut std::io::stdout())?;
    Ok(Count { passed: summary.problems as usize - summary.failures.len(), failed: summary.failures.len() })
}

fn parse_limits(text: &str) -> Result<wgpu::Limits> {
    let mut limits = wgpu::Limits::default();
    if text != "default" {
        let bytes = text.parse().ok().filter(|&bytes| (4096..=limits.max_storage_buffer_binding_size).contains(&bytes));
        let range = format!("4096 to {}", limits.max_storage_buffer_binding_size);
        let wrong = || Error::Failed(format!("limits: expected \"default\" or {range} bytes, got \"{text}\""));
        limits.max_storage_buffer_binding_size = bytes.ok_or_else(wrong)?;
    }
    Ok(limits)
}

fn parse_operations(text: &str) -> Result<u64> {
    let wrong = |_| Error::Failed(format!("WGCONV_MAX_WORK: expected a number of operations, got \"{text}\""));
    text.parse().map_err(wrong)
}

/// Another one each time: the clock's.
fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_nanos().into()) ^ std::process::id() as u64
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
