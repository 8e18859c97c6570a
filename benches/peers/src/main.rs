//! The layers of `benches/layers.json` on wgconv and on burn's wgpu backend, in turn, in one process, on one adapter.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use wgconv::{AdapterClass, Gpu};

use common::{Error, Result, one_line};
use measure::{Measurement, Times, measure};
use table::{Layer, Tier, read_table};
use theirs::Burn;

mod common;
#[path = "../../../examples/verify/compare.rs"]
mod compare;
#[path = "../../../examples/verify/launch.rs"]
#[allow(dead_code)] // The examples use all of it.
mod launch;
mod measure;
#[path = "../../../examples/verify/operation.rs"]
#[allow(dead_code)]
mod operation;
#[path = "../../../examples/layers/table.rs"]
#[allow(dead_code)]
mod table;
mod theirs;

/// Measures layers on wgconv and on burn's wgpu backend, in turn (ours, theirs, ours, theirs ...), and compares the results.
///
/// Each library has a device of its own on the same adapter. A call is timed from recording to done, with all tensors on the device.
/// Columns: the first call of each, with all that it compiles and tunes; least, median and greatest time of the calls after a warm-up;
/// theirs/ours of the medians; the largest difference of the results, and its bound. The exit code is 1 where two results disagree or a
/// layer fails.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Table of layers in the form of benches/layers.json, which is the default.
    file: Option<PathBuf>,
    /// Only layers of this tier; by default all, and on a software adapter those for a CPU.
    #[arg(long)]
    tier: Option<Tier>,
    /// Only layers whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Calls of each library that count.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Calls of each library between two waits, of which a time is one call's share: with several, a small layer's own time and not
    /// that of the submission.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    calls: u16,
    /// Write the numbers to this file.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Take the adapter whose name contains this; otherwise the environment variable WGCONV_ADAPTER chooses.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

#[derive(Serialize)]
struct Report {
    adapter: String,
    driver: String,
    layers: Vec<Row>,
}

/// One layer on one library.
#[derive(Serialize)]
struct Row {
    name: String,
    op: &'static str,
    peer: String,
    first_ms: f64,
    min_ms: f64,
    median_ms: f64,
    max_ms: f64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let mut builder = Gpu::builder().adapter_from_env();
    if let Some(name) = &options.adapter {
        builder = builder.adapter(name);
    }
    let gpu = builder.build_blocking()?;
    let software = gpu.profile().class == AdapterClass::Cpu;
    let tier = options.tier.or(software.then_some(Tier::Cpu));
    let mut layers = read_table(options.file.as_deref())?;
    layers.retain(|layer| tier.is_none_or(|tier| layer.tier == tier) && layer.name.contains(&options.filter));
    if layers.is_empty() {
        return Err(Error::Failed("no layer of that tier has such a name".into()));
    }
    let cannot_write = |source| Error::Io { path: options.json.clone().unwrap_or_default(), source };
    // Opened first: what was measured for minutes must not be lost.
    let json = options.json.as_ref().map(File::create).transpose().map_err(cannot_write)?;
    let info = gpu.adapter_info();
    let burn = Burn::open(&info)?;
    let driver = one_line(&[info.driver.as_str(), &info.driver_info].join(" "));
    println!("{} ({:?}, {driver}); a device each for wgconv and burn ({})", info.name, info.backend, burn.name);
    println!("milliseconds of a call: first | min median max\n");
    println!("{:24} {:14} {:^38} {:^38} {:>7}  difference    bound", "layer", "wgconv", "wgconv", "burn", "ratio");

    let mut report = Report { adapter: info.name.clone(), driver, layers: Vec::new() };
    let (mut ratios, mut without, mut failed) = (Vec::new(), 0, 0);
    for layer in &layers {
        let measured =
            layer.problem().and_then(|problem| measure(&gpu, &burn, &problem, options.repeat.into(), options.calls));
        let measurement = match measured {
            Ok(measurement) => measurement,
            Err(error) => {
                println!("{:24} FAIL: {}", layer.name, one_line(&error.to_string()));
                failed += 1;
                continue;
            }
        };
        println!("{}", line(layer, &measurement));
        report.layers.push(Row::new(layer, "wgconv", &measurement.ours));
        match &measurement.theirs {
            Some(theirs) => {
                report.layers.push(Row::new(layer, &format!("burn {}", burn.name), &theirs.times));
                // The time of a wrong result says nothing.
                match theirs.comparison.passed {
                    true => ratios
                        .push((theirs.times.median / measurement.ours.median, theirs.times.min / measurement.ours.min)),
                    false => failed += 1,
                }
            }
            None => without += 1,
        }
    }
    if !ratios.is_empty() {
        let count = ratios.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| (ratios.iter().map(|r| of(r).ln()).sum::<f64>() / count).exp();
        let (medians, least) = (mean(|r| r.0), mean(|r| r.1));
        println!("\ngeometric mean of theirs/ours, {count} layers: {medians:.2} of medians, {least:.2} of least times");
    }
    if without > 0 {
        println!("{without} layers have no counterpart in burn and are not in the mean");
    }
    if let Some(mut file) = json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| cannot_write(error.into()))?;
        writeln!(file, "{text}").map_err(cannot_write)?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(Error::Failed(format!("{failed} layers failed"))),
    }
}

impl Row {
    fn new(layer: &Layer, peer: &str, times: &Times) -> Self {
        let &Times { first, min, median, max } = times;
        let (name, peer) = (layer.name.clone(), peer.to_string());
        Self { name, op: layer.op.name(), peer, first_ms: first, min_ms: min, median_ms: median, max_ms: max }
    }
}

fn line(layer: &Layer, measurement: &Measurement) -> String {
    let times = |t: &Times| format!("{:>9.1} | {:>8.2} {:>8.2} {:>8.2}", t.first, t.min, t.median, t.max);
    let start = format!("{:24} {:14} {}", layer.name, measurement.kernel, times(&measurement.ours));
    let Some(theirs) = &measurement.theirs else {
        return format!("{start}   no counterpart: burn has no {}", layer.op.name());
    };
    let (ratio, c) = (theirs.times.median / measurement.ours.median, &theirs.comparison);
    let mut line = format!("{start} {} {ratio:>6.2}x {:>10.2e} {:>9.2e}", times(&theirs.times), c.error, c.bound);
    if let Some(truth) = theirs.truth {
        line += &format!("  FAIL at {:?}: wgconv {}, burn {}, in double precision {truth}", c.index, c.want, c.got);
    }
    line
}
