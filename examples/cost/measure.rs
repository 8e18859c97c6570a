//! Measures rows and writes them down.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use wgconv::Gpu;

use super::common::{self, Result, median, time};
use super::rows::{Kind, Layer, Row};

/// What both tables measure, and how.
#[derive(clap::Args)]
pub struct Settings {
    /// Taps of the kernel along each axis.
    #[arg(long, value_name = "K", default_value_t = 3)]
    pub kernel: usize,
    /// Groups of the grouped convolution.
    #[arg(long, value_name = "G", default_value_t = 32)]
    pub groups: usize,
    /// Pictures at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: usize,
    /// Calls to take the median of.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub repeat: u16,
    /// Write the numbers to this file.
    #[arg(long, value_name = "OUT")]
    pub json: Option<PathBuf>,
    /// Part of an adapter's name; else WGCONV_ADAPTER, else the most powerful.
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
}

/// Calls before those that count: the first compiles.
const WARM_UP: usize = 2;

/// What the times are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The sum over a call's dispatches by the device's clock.
    Device,
    /// Recording, submitting and waiting.
    Wall,
    /// One run of the CPU reference.
    Reference,
}

impl Clock {
    /// What stands above the times.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Device => "median time of a call's dispatches by the device's clock",
            Self::Wall => "median time of recording, submitting and waiting for a call",
            Self::Reference => "time of one run of the CPU reference",
        }
    }
}

/// A row with its time.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub operator: String,
    pub kind: Kind,
    pub parameters: u64,
    pub macs: u64,
    pub flops: u64,
    pub bytes: u64,
    pub flops_per_byte: f64,
    pub milliseconds: f64,
    /// Time over the standard convolution's.
    pub time_ratio: f64,
    pub clock: Clock,
}

/// Measures all rows of a layer, the standard convolution first; on the CPU reference where there is no GPU.
///
/// # Errors
/// A layer that a row cannot take, and errors of the device.
pub fn measure(layer: &Layer, gpu: Option<&Gpu>, repeat: usize) -> Result<Vec<Measured>> {
    // All of them are checked before the first is run.
    let rows = Kind::all(layer.kernel).into_iter().map(|kind| Row::new(layer, kind)).collect::<Result<Vec<Row>>>()?;
    let bar = common::progress(rows.len() as u64);
    let mut measured: Vec<Measured> = vec![];
    for row in rows {
        bar.set_message(row.name.clone());
        let (milliseconds, clock) = match gpu {
            Some(gpu) => on_gpu(&row, gpu, repeat)?,
            None => {
                let start = Instant::now();
                row.on_reference()?;
                (start.elapsed().as_secs_f64() * 1e3, Clock::Reference)
            }
        };
        let standard = measured.first().map_or(milliseconds, |first| first.milliseconds);
        measured.push(Measured {
            operator: row.name,
            kind: row.kind,
            parameters: row.cost.parameters,
            macs: row.cost.macs,
            flops: row.cost.flops,
            bytes: row.cost.bytes(),
            flops_per_byte: row.cost.arithmetic_intensity(),
            milliseconds,
            time_ratio: milliseconds / standard,
            clock,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measured)
}

fn on_gpu(row: &Row, gpu: &Gpu, repeat: usize) -> Result<(f64, Clock)> {
    let ready = row.on_gpu(gpu)?;
    for _ in 0..WARM_UP {
        ready.forward()?;
        gpu.wait()?;
    }
    let (mut device, mut wall) = (vec![], vec![]);
    for _ in 0..repeat {
        let times = gpu.time_kernels(|| ready.forward().map(drop))?;
        if times.is_empty() {
            let start = Instant::now();
            ready.forward()?;
            gpu.wait()?;
            wall.push(start.elapsed().as_secs_f64() * 1e3);
        } else {
            device.push(times.iter().map(|time| time.nanoseconds).sum::<f64>() / 1e6);
        }
    }
    // What this row needed is of no use to the next.
    drop(ready);
    gpu.trim()?;
    Ok(if device.is_empty() { (median(&mut wall), Clock::Wall) } else { (median(&mut device), Clock::Device) })
}

/// A count in three digits or so.
pub fn count(value: u64) -> String {
    match value {
        v if v < 10_000 => v.to_string(),
        v if v < 1_000_000 => format!("{:.1} k", v as f64 / 1e3),
        v if v < 1_000_000_000 => format!("{:.1} M", v as f64 / 1e6),
        v => format!("{:.2} G", v as f64 / 1e9),
    }
}

/// The names of [`Measured::line`]'s columns.
pub fn head() -> String {
    let counts = format!("{:>10} {:>9} {:>9} {:>9} {:>7}", "parameters", "MACs", "FLOPs", "bytes", "FLOP/B");
    format!("{:<30} {counts} {:>10} {:>11} {:>8}", "operator", "time", "x standard", "GMAC/s")
}

impl Measured {
    /// A row of the table.
    pub fn line(&self) -> String {
        let [macs, flops, bytes] = [self.macs, self.flops, self.bytes].map(count);
        let counts =
            format!("{:>10} {macs:>9} {flops:>9} {bytes:>9} {:>7.2}", count(self.parameters), self.flops_per_byte);
        let rate = self.macs as f64 / self.milliseconds / 1e6;
        let time = time(self.milliseconds / 1e3);
        format!("{:<30} {counts} {time:>10} {:>11.2} {rate:>8.2}", self.operator, self.time_ratio)
    }
}
