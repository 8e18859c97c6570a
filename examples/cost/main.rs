//! What a layer costs made by one operator or another: parameters, MACs, FLOPs and bytes by `wgconv::analysis::cost`, and the time that
//! it takes on this adapter.
//!
//! `cargo run --release --example cost -- --channels 64,64 --size 56x56 --kernel 3 --groups 32`

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use wgconv::Gpu;

#[path = "../common/mod.rs"]
pub(crate) mod common;
pub(crate) mod measure;
pub(crate) mod rows;

use common::{Error, Result, say};
use measure::{Measured, Settings, head};
use rows::Layer;

/// Prints what a convolution of the given channels and extents costs when made as a standard, grouped, depthwise separable, spatially
/// separable, pointwise or deformable convolution or as an involution: parameters, MACs, FLOPs, bytes, FLOPs a byte, and the median
/// time on this adapter.
///
/// All keep the extents (padding "same"). Deformable v2 has with it the two convolutions that make offsets and mask; the involution
/// layer has RedNet's 16 channels a group and reduction 4, and where the channels change, a pointwise convolution behind it.
#[derive(Parser)]
pub(crate) struct Options {
    /// Input and output channels.
    #[arg(long, value_name = "IN,OUT", value_delimiter = ',', num_args = 1, default_value = "64,64")]
    channels: Vec<usize>,
    /// Height and width.
    #[arg(long, value_name = "HxW", default_value = "56x56", value_parser = extents)]
    size: [usize; 2],
    #[command(flatten)]
    settings: Settings,
}

fn extents(text: &str) -> Result<[usize; 2], String> {
    let number = |part: &str| part.trim().parse().map_err(|_| "expected HxW, such as 56x56".to_string());
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    Ok([number(height)?, number(width)?])
}

#[derive(Serialize)]
struct Report<'a> {
    adapter: String,
    rows: &'a [Measured],
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse(), &mut std::io::stdout()).map(drop))
}

/// The whole example; gives what it writes to `out`.
///
/// # Errors
/// A layer that does not fit, an adapter that is not there, a file that cannot be written.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<Vec<Measured>> {
    let &[c_in, c_out] = options.channels.as_slice() else {
        return Err(Error::Failed(format!("--channels: expected IN,OUT, got {} numbers", options.channels.len())));
    };
    let [height, width] = options.size;
    let Settings { kernel, groups, batch, .. } = options.settings;
    let layer = Layer { batch, c_in, c_out, height, width, kernel, groups };
    rows::check(&layer)?;
    let json = common::create(options.settings.json.as_deref())?;
    let gpu = common::open_gpu(options.settings.adapter.as_deref())?;
    let adapter = gpu.as_ref().map_or("CPU reference".to_string(), |gpu: &Gpu| common::describe(&gpu.adapter_info()));
    let rows = measure::measure(&layer, gpu.as_ref(), options.settings.repeat.into())?;
    common::write_json(json, &Report { adapter: adapter.clone(), rows: &rows })?;
    say(out, &adapter)?;
    let clock = rows.first().map_or("", |row| row.clock.describe());
    say(out, format!("{c_in} to {c_out} channels, {height} x {width}, batch {batch}; {clock}"))?;
    say(out, head())?;
    for row in &rows {
        say(out, row.line())?;
    }
    Ok(rows)
}
