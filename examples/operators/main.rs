//! Ranks operators by the time that they take on this adapter, for the layers that an image classifier has: what each choice costs, and
//! where fewer MACs do not save time.
//!
//! `cargo run --release --example operators -- --layers 64@56,512@7`

use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Parser;
use serde::Serialize;

#[path = "../common/mod.rs"]
pub(crate) mod common;
#[path = "../cost/measure.rs"]
pub(crate) mod measure;
#[path = "../cost/rows.rs"]
pub(crate) mod rows;

use common::{Result, say};
use measure::{Measured, Settings, head};
use rows::Layer;

/// Ranks the operators that can make a layer of an image classifier by the time that each takes on this adapter, with parameters and
/// MACs beside it.
///
/// The operators are those of the example `cost`, whose help says what they are. The layers keep their channels and extents.
#[derive(Parser)]
pub(crate) struct Options {
    /// Layers as channels@extent; by default those of a ResNet's four stages.
    #[arg(long, value_name = "C@S,..", value_delimiter = ',', default_value = "64@56,128@28,256@14,512@7")]
    layers: Vec<Stage>,
    #[command(flatten)]
    settings: Settings,
}

/// A stage of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    channels: usize,
    extent: usize,
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |part: &str| part.trim().parse().map_err(|_| "expected channels@extent, such as 64@56".to_string());
        let (channels, extent) = text.split_once('@').unwrap_or((text, ""));
        Ok(Self { channels: number(channels)?, extent: number(extent)? })
    }
}

/// A layer's operators, the fastest first.
#[derive(Debug, Serialize)]
pub(crate) struct Ranking {
    pub layer: String,
    pub operators: Vec<Measured>,
}

#[derive(Serialize)]
struct Report<'a> {
    adapter: String,
    layers: &'a [Ranking],
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse(), &mut std::io::stdout()).map(drop))
}

/// The whole example; gives what it writes to `out`.
///
/// # Errors
/// A layer that does not fit, an adapter that is not there, a file that cannot be written.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<Vec<Ranking>> {
    let Settings { kernel, groups, batch, .. } = options.settings;
    let layers: Vec<Layer> = options
        .layers
        .iter()
        .map(|&Stage { channels, extent }| Layer {
            batch,
            c_in: channels,
            c_out: channels,
            height: extent,
            width: extent,
            kernel,
            groups,
        })
        .collect();
    // All of them are checked before the first is measured.
    for layer in &layers {
        rows::check(layer)?;
    }
    let json = common::create(options.settings.json.as_deref())?;
    let gpu = common::open_gpu(options.settings.adapter.as_deref())?;
    let adapter = gpu.as_ref().map_or("CPU reference".to_string(), |gpu| common::describe(&gpu.adapter_info()));
    say(out, &adapter)?;
    let mut rankings = vec![];
    for layer in &layers {
        let mut operators = measure::measure(layer, gpu.as_ref(), options.settings.repeat.into())?;
        if rankings.is_empty() {
            say(out, operators.first().map_or("", |operator| operator.clock.describe()))?;
        }
        operators.sort_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds));
        let ranking = Ranking { layer: format!("{0}x{0}, {1} channels", layer.height, layer.c_in), operators };
        print(&ranking, out)?;
        rankings.push(ranking);
    }
    common::write_json(json, &Report { adapter, layers: &rankings })?;
    Ok(rankings)
}

fn print(ranking: &Ranking, out: &mut impl Write) -> Result<()> {
    say(out, format!("\n{}\n     {} {:>9}", ranking.layer, head(), "MAC rank"))?;
    for (operator, rank) in ranking.operators.iter().zip(1..) {
        let fewer = ranking.operators.iter().filter(|other| other.macs < operator.macs).count();
        say(out, format!("{rank:>3}. {} {:>9}", operator.line(), fewer + 1))?;
    }
    Ok(())
}
