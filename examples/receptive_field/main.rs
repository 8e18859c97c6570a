//! Which pixels one output of a stack of dilated convolutions sees, and how often: the gridding map, drawn as a picture, and what the
//! rules of hybrid dilated convolution say of the rates.
//!
//! `cargo run --example receptive_field -- --rates 2,2,2 --kernel 3 --out map.png`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use wgconv::analysis::{GriddingMap, HdcReport, Layer, hdc, propose_rates};
use wgconv::ndarray::ArrayD;

#[path = "../common/mod.rs"]
pub(crate) mod common;
pub(crate) mod picture;
#[path = "../common/text.rs"]
pub(crate) mod text;

use common::Result;
use picture::Captions;

/// Draws which pixels one output of a stack of dilated convolutions sees, and how often, and says whether the rates follow the rules
/// of hybrid dilated convolution (HDC).
#[derive(Parser)]
pub(crate) struct Options {
    /// Dilation rates, of the first layer first.
    #[arg(long, value_name = "RATES", value_delimiter = ',', default_value = "1,2,5")]
    rates: Vec<usize>,
    /// Taps of every layer's kernel along each axis.
    #[arg(long, value_name = "K", default_value_t = 3)]
    kernel: usize,
    /// Where the picture goes, as PNG.
    #[arg(long, value_name = "FILE", default_value = "receptive_field.png")]
    out: PathBuf,
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse()))
}

/// The whole example.
///
/// # Errors
/// Rates and kernels that make no map or too large a one, a picture that cannot be written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let report = hdc(&options.rates, options.kernel)?;
    let layers: Vec<_> = options.rates.iter().map(|&rate| Layer::<2>::new(options.kernel).dilation(rate)).collect();
    let map = GriddingMap::new(&layers)?;
    let counts = map.counts()?;
    let captions = describe(options, &map, &counts, &report)?;
    let sheet = picture::draw(&counts, &captions)?;
    println!("{}", captions.title);
    for line in captions.verdicts.iter().map(|(line, _)| line).chain(&captions.notes) {
        println!("{line}");
    }
    common::save_picture(&sheet, &options.out)?;
    println!("{}: {} x {} pixels", options.out.display(), sheet.width(), sheet.height());
    Ok(())
}

/// What stands on the picture and on stdout.
fn describe(options: &Options, map: &GriddingMap<2>, counts: &ArrayD<u128>, report: &HdcReport) -> Result<Captions> {
    let extent = counts.shape()[0];
    let list = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let missed = counts.iter().filter(|&&count| count == 0).count();
    let holes = match missed {
        0 => format!("no holes: all {} pixels are seen", counts.len()),
        _ => format!("holes: {missed} of {} pixels are never seen", counts.len()),
    };
    let mut verdicts = vec![(holes, !map.has_holes())];
    match report.reasons() {
        reasons if reasons.is_empty() => verdicts.push(("HDC holds".to_string(), true)),
        reasons => {
            verdicts.push(("HDC does not hold:".to_string(), false));
            verdicts.extend(reasons.into_iter().map(|reason| (format!("  {reason}"), false)));
        }
    }
    let share = 100.0 * map.share_seen();
    let mut notes = vec![format!("receptive field {extent} x {extent}; one output sees {share:.1} % of its pixels")];
    let mut told = vec![];
    for group in report.groups().iter().filter(|group| group.rates().len() > 1) {
        // A saw has the same tooth many times.
        if !told.contains(&group) {
            told.push(group);
            let (last, distances) = (group.rates().len(), list(group.distances()));
            notes.push(format!("largest distances M_1 to M_{last} of {group}: {distances}"));
        }
    }
    if map.has_holes() {
        notes.push(format!("the same field without holes: rates {}", list(&propose_rates(extent, options.kernel)?)));
    }
    let plural = if options.rates.len() == 1 { "Rate" } else { "Rates" };
    let title = format!("{plural} {}, kernel {}", list(&options.rates), options.kernel);
    Ok(Captions { title, verdicts, notes })
}
