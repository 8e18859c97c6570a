//! Finds the cuts of a clip: TransNetV2, a network of 3-d convolutions that are dilated along time.
//!
//! `ffmpeg -i film.mp4 frames/%06d.png && cargo run --release --example shots -- frames`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use wgconv::Gpu;

pub(crate) mod clip;
#[path = "../common/mod.rs"]
pub(crate) mod common;
#[path = "../common/network.rs"]
pub(crate) mod layers;
pub(crate) mod network;

use common::Result;
use network::TransNet;

/// Finds the cuts of a clip, with TransNetV2 on the GPU.
#[derive(Parser)]
pub(crate) struct Options {
    /// A folder of frames, PNG or JPEG, in the order of their names; a clip made of photos unless given.
    folder: Option<PathBuf>,
    /// Probability over which a frame counts as one where the shot changes.
    #[arg(long, value_name = "P", default_value_t = 0.5)]
    threshold: f32,
    /// Part of an adapter's name; else WGCONV_ADAPTER, else the most powerful.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Folder with transnetv2.safetensors; examples/data of the repository unless given.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

const WEIGHTS: &str = "transnetv2.safetensors";
/// Frames that the network sees at once. Those up to [`MARGIN`] from their ends are only seen, for the others' sake.
const SEEN: usize = 100;
const MARGIN: usize = 25;

/// A change of the shot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change {
    /// First and last frame over the threshold. A hard cut is one frame, the last of its shot.
    pub first: usize,
    pub last: usize,
    /// The greatest probability.
    pub probability: f32,
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse()).map(|_| ()))
}

/// The whole example.
///
/// # Errors
/// Weights or frames that cannot be read, an adapter that is not there.
pub(crate) fn run(options: &Options) -> Result<Vec<Change>> {
    let weights = options.data.as_ref().map_or_else(|| common::data(WEIGHTS), |folder| folder.join(WEIGHTS));
    let archive = common::load_safetensors(&weights)?;
    let frames = match &options.folder {
        Some(folder) => {
            let files = clip::files(folder)?;
            let bar = common::progress(files.len() as u64);
            bar.set_message("reading frames");
            let frames = clip::read(&files, || bar.inc(1));
            bar.finish_and_clear();
            frames?
        }
        None => clip::synthetic()?.0,
    };
    let gpu = common::open_gpu(options.adapter.as_deref())?;
    let adapter = gpu
        .as_ref()
        .map_or("none, CPU reference in double precision".into(), |gpu| common::describe(&gpu.adapter_info()));
    let shown = options.folder.as_ref().map_or("made of photos".into(), |folder| folder.display().to_string());
    println!("network    TransNetV2");
    println!("adapter    {adapter}");
    println!("clip       {shown}, {} frames", frames.len());
    let network = TransNet::new(&archive, gpu.as_ref())?;
    let (single, many, time) = probabilities(&network, gpu.as_ref(), &frames)?;
    println!("inference  {time}\n");
    draw(&single, &many);
    let changes = changes(&single, options.threshold);
    print(&changes, frames.len());
    Ok(changes)
}

/// For each frame the probability that the shot changes there, and the probability that it belongs to a change; and how long one
/// run of the network took, in words.
pub(crate) fn probabilities(
    network: &TransNet,
    gpu: Option<&Gpu>,
    frames: &[Vec<u8>],
) -> Result<(Vec<f32>, Vec<f32>, String)> {
    let step = SEEN - 2 * MARGIN;
    let starts: Vec<usize> = (0..frames.len()).step_by(step).collect();
    let bar = common::progress(starts.len() as u64);
    bar.set_message("compiling kernels, packing weights, convolving");
    let (mut single, mut many, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for &start in &starts {
        // Before the first frame and behind the last one stand the first and the last.
        let frame = |i: usize| frames[(start + i).saturating_sub(MARGIN).min(frames.len() - 1)].clone();
        let seen: Vec<_> = (0..SEEN).map(frame).collect();
        let began = Instant::now();
        let logits = network.logits(gpu, &seen)?;
        times.push(began.elapsed().as_secs_f64());
        let kept = |logits: Vec<f32>| logits.into_iter().skip(MARGIN).take(step).map(|x| 1.0 / (1.0 + (-x).exp()));
        single.extend(kept(logits.single));
        many.extend(kept(logits.many));
        bar.set_message("convolving");
        bar.inc(1);
    }
    bar.finish_and_clear();
    single.truncate(frames.len());
    many.truncate(frames.len());
    let first = common::time(times.first().copied().unwrap_or_default());
    let rest = times.get_mut(1..).unwrap_or_default();
    let time = match rest.len() {
        0 => format!("{first} for {SEEN} frames, with compiling and packing"),
        n => {
            let time = common::time(common::median(rest));
            format!("{time} for {SEEN} frames (median of {n} after the first, which took {first})")
        }
    };
    Ok((single, many, time))
}

/// Runs of frames over a threshold.
pub(crate) fn changes(probabilities: &[f32], threshold: f32) -> Vec<Change> {
    let mut found: Vec<Change> = Vec::new();
    for (i, &probability) in probabilities.iter().enumerate().filter(|(_, p)| **p > threshold) {
        match found.last_mut() {
            Some(change) if change.last + 1 == i => {
                change.last = i;
                change.probability = change.probability.max(probability);
            }
            _ => found.push(Change { first: i, last: i, probability }),
        }
    }
    found
}

/// The probabilities as bars, a hundred frames a line.
fn draw(single: &[f32], many: &[f32]) {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let line = |part: &[f32]| part.iter().map(|p| BARS[(p * 8.0).round() as usize]).collect::<String>();
    for (i, (single, many)) in single.chunks(100).zip(many.chunks(100)).enumerate() {
        println!("{:>6}  changes   {}", i * 100, line(single));
        println!("        changing  {}", line(many));
    }
}

/// The shots, and what is between them.
fn print(changes: &[Change], frames: usize) {
    println!("\n{} changes", changes.len());
    let mut start = 0;
    for change in changes {
        println!("  shot   {start:>6} to {:<6}", change.first);
        match change.last - change.first {
            0 => println!(
                "  cut    {:>6} | {:<6}  {:>5.1} %",
                change.first,
                change.first + 1,
                change.probability * 100.0
            ),
            _ => println!("  change {:>6} to {:<6} {:>5.1} %", change.first, change.last, change.probability * 100.0),
        }
        start = change.last + 1;
    }
    if start < frames {
        println!("  shot   {start:>6} to {:<6}", frames - 1);
    }
}
