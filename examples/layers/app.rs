//! What `layers` does, apart from reading its arguments.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use wgconv::{AdapterClass, Gpu};

use super::common::{Error, Result, create, describe, progress, time, write_json};
use super::measure::{Measurement, on_gpu, on_reference};
use super::roofline::{Floor, Peaks};
use super::table::{Layer, Problem, Tier, read_table};

/// What to measure and how.
pub struct Request {
    pub table: Option<PathBuf>,
    /// The tier that suits the adapter where none is named.
    pub tier: Option<Tier>,
    pub filter: String,
    /// A kernel's name, or `all`; by default the one that is chosen.
    pub kernel: Option<String>,
    pub repeat: usize,
    pub check: bool,
    /// A file that the example `peaks` wrote.
    pub peaks: Option<PathBuf>,
    pub json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    adapter: String,
    driver: String,
    layers: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    op: &'static str,
    kernel: String,
    first_ms: f64,
    wall_ms: f64,
    kernel_ms: Option<f64>,
    gflops: f64,
    gb_per_s: f64,
    max_error: Option<f64>,
    error_bound: Option<f64>,
    #[serde(flatten)]
    floor: Option<Floor>,
}

/// Measures the layers and writes the table; on the CPU reference where there is no GPU. Gives the number of layers that failed.
pub fn layers(request: &Request, gpu: Option<&Gpu>, out: &mut impl Write) -> Result<usize> {
    let all = read_table(request.table.as_deref())?;
    let peaks = request.peaks.as_deref().map(Peaks::read).transpose()?;
    let software = gpu.is_none_or(|gpu| gpu.profile().class == AdapterClass::Cpu);
    let wanted = |layer: &&Layer| {
        // A software adapter would take minutes for each layer of the GPU's tier.
        let tier = request.tier.or(software.then_some(Tier::Cpu));
        tier.is_none_or(|tier| layer.tier == tier) && layer.name.contains(&request.filter)
    };
    let chosen: Vec<&Layer> = all.iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err(Error::Failed(format!(
            "no layer of {} is of that tier and has \"{}\" in its name",
            all.len(),
            request.filter
        )));
    }
    // Opened first: what was measured for minutes must not be lost.
    let json = create(request.json.as_deref())?;
    let info = gpu.map(Gpu::adapter_info);
    let mut report = Report {
        adapter: info.as_ref().map_or("CPU reference".into(), |info| info.name.clone()),
        driver: info
            .as_ref()
            .map_or(String::new(), |info| [info.driver.as_str(), &info.driver_info].join(" ").trim().into()),
        layers: Vec::new(),
    };
    say(out, &info.map_or("CPU reference".into(), |info| describe(&info)))?;
    say(out, &(head() + if peaks.is_some() { "     floor bound by   reached" } else { "" }))?;
    let bar = progress(chosen.len() as u64);
    let mut failed = 0;
    for layer in chosen {
        bar.set_message(layer.name.clone());
        let measured = layer.problem().and_then(|problem| {
            let measurement = match gpu {
                Some(gpu) => on_gpu(gpu, &problem, request.kernel.as_deref(), request.repeat, request.check),
                None => on_reference(&problem).map(|measurement| vec![measurement]),
            };
            measurement.map(|measurement| (problem, measurement))
        });
        let lines = match measured {
            Ok((problem, measurements)) => {
                let line = |measurement: Measurement| {
                    failed += usize::from(measurement.check.as_ref().is_some_and(|check| !check.passed));
                    let floor = peaks.as_ref().map(|peaks| peaks.floor(problem.flops, problem.least_bytes));
                    let row = Row::new(layer, &problem, &measurement, floor);
                    let line = row.line(&measurement);
                    report.layers.push(row);
                    line
                };
                measurements.into_iter().map(line).collect()
            }
            Err(error) => {
                failed += 1;
                let reason: Vec<String> = error.to_string().split_whitespace().map(str::to_string).collect();
                vec![format!("{:26} FAIL: {}", layer.name, reason.join(" "))]
            }
        };
        for line in lines {
            bar.suspend(|| say(out, &line))?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let (Some(kernel), true) = (&request.kernel, report.layers.is_empty() && failed == 0) {
        return Err(Error::Failed(format!(
            "--kernel: expected one that can take a layer on this adapter, got {kernel}"
        )));
    }
    write_json(json, &report)?;
    Ok(failed)
}

fn say(out: &mut impl Write, line: &str) -> Result<()> {
    writeln!(out, "{line}").map_err(|source| Error::Io { path: "standard output".into(), source })
}

fn head() -> String {
    let times = format!("{:>9} {:>9} {:>9}", "first", "wall", "kernel");
    format!(
        "{:26} {:14} {:10} {times} {:>9} {:>7}  {:>9} {:>9}",
        "layer", "operator", "kernel", "GFLOP/s", "GB/s", "max error", "bound"
    )
}

impl Row {
    fn new(layer: &Layer, problem: &Problem, measurement: &Measurement, floor: Option<Floor>) -> Self {
        // The rates are the kernel's where its time is known.
        let seconds = measurement.kernel_ms.unwrap_or(measurement.wall_ms) / 1e3;
        Self {
            name: layer.name.clone(),
            op: layer.op.name(),
            kernel: measurement.kernel.clone(),
            first_ms: measurement.first_ms,
            wall_ms: measurement.wall_ms,
            kernel_ms: measurement.kernel_ms,
            gflops: problem.flops / seconds / 1e9,
            gb_per_s: problem.least_bytes / seconds / 1e9,
            max_error: measurement.check.as_ref().map(|check| check.error),
            error_bound: measurement.check.as_ref().map(|check| check.bound),
            floor,
        }
    }

    fn line(&self, measurement: &Measurement) -> String {
        let ms = |ms: f64| time(ms / 1e3);
        let (first, wall) = (ms(self.first_ms), ms(self.wall_ms));
        let kernel = self.kernel_ms.map_or("-".into(), ms);
        let check = match &measurement.check {
            Some(check) => format!("{:9.2e} {:9.2e}", check.error, check.bound),
            None => format!("{:>9} {:>9}", "-", "-"),
        };
        let mut line = format!(
            "{:26} {:14} {:10} {first:>9} {wall:>9} {kernel:>9} {:>9.1} {:>7.2}  {check}",
            self.name, self.op, self.kernel, self.gflops, self.gb_per_s
        );
        if let Some(floor) = &self.floor {
            let reached = floor.floor_ms / self.kernel_ms.unwrap_or(self.wall_ms) * 100.0;
            line += &format!(" {:>9} {:10} {reached:5.1} %", ms(floor.floor_ms), floor.bound_by);
        }
        if let Some(check) = measurement.check.as_ref().filter(|check| !check.passed) {
            line += &format!("  FAIL at {:?}: got {}, want {}", check.index, check.got, check.want);
        }
        line
    }
}
