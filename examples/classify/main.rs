//! Says what a picture shows: MobileNetV2, a network of pointwise and depthwise convolutions, with its ImageNet weights.

#[path = "../common/mod.rs"]
mod common;
mod device;
mod network;
mod picture;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use wgconv::ndarray::ArrayD;
use wgconv::{Gpu, Tensor, reference};

use common::Result;
use device::{LayerTime, OnDevice};
use network::{MobileNetV2, load_labels};

/// Names what pictures show, with MobileNetV2 on the GPU.
#[derive(Parser)]
struct Options {
    /// Pictures (PNG or JPEG); a cup of coffee and a cat unless given.
    images: Vec<PathBuf>,
    /// Prints a table of the layers with kernel, time and GFLOP/s.
    #[arg(long)]
    layers: bool,
    /// The adapter whose name contains this (else WGCONV_ADAPTER, else the most powerful).
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Folder with mobilenet_v2.safetensors and imagenet_labels.txt; examples/data of the repository unless given.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let file = |name: &str| options.data.as_ref().map_or_else(|| common::data(name), |folder| folder.join(name));
    let network = MobileNetV2::new(&common::load_safetensors(&file("mobilenet_v2.safetensors"))?)?;
    let labels = load_labels(&file("imagenet_labels.txt"))?;
    let mut paths = options.images.clone();
    if paths.is_empty() {
        paths = vec![common::data("coffee.png"), common::data("chelsea.png")];
    }
    let pictures: Vec<_> = paths.iter().map(|path| picture::prepare(path)).collect::<Result<_>>()?;
    let gpu = common::open_gpu(options.adapter.as_deref())?;
    let adapter = gpu
        .as_ref()
        .map_or("none, CPU reference in double precision".into(), |gpu| common::describe(&gpu.adapter_info()));
    println!("network    MobileNetV2, {:.2} M parameters", network.parameters() as f64 / 1e6);
    println!("adapter    {adapter}");
    let shown = Shown { paths: &paths, labels: &labels };
    let (inference, rows) = match &gpu {
        Some(gpu) => on_gpu(gpu, &network, &pictures, &shown, options.layers)?,
        None => on_cpu(&network, &pictures, &shown)?,
    };
    println!("\ninference  {inference}");
    if options.layers {
        print_layers(&network, &rows);
    }
    Ok(())
}

/// What the answers are printed with.
struct Shown<'a> {
    paths: &'a [PathBuf],
    labels: &'a [String],
}

impl Shown<'_> {
    /// The five best classes of picture `i`.
    fn print(&self, i: usize, probabilities: impl Iterator<Item = f64>) {
        println!("\n{}", self.paths[i].display());
        let mut best: Vec<(usize, f64)> = probabilities.enumerate().collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (class, probability) in best.into_iter().take(5) {
            let bar = "█".repeat((probability * 24.0).round() as usize);
            println!("  {:>5.1} %  {bar:<24}  {}", probability * 100.0, self.labels[class]);
        }
    }
}

/// Most inferences that are timed; fewer where they are slow.
const MOST_RUNS: usize = 21;

/// Classifies the pictures; how long one inference takes, and the layers' times where they are asked for.
fn on_gpu(
    gpu: &Gpu,
    network: &MobileNetV2,
    pictures: &[ArrayD<f32>],
    shown: &Shown<'_>,
    layers: bool,
) -> Result<(String, Vec<LayerTime>)> {
    let spinner = common::busy("compiling kernels, packing weights");
    let network = OnDevice::new(gpu, network)?;
    let x = Tensor::from_array(gpu, &pictures[0])?;
    network.probabilities(&x)?;
    gpu.wait()?;
    spinner.finish_and_clear();
    for (i, picture) in pictures.iter().enumerate() {
        let probabilities = network.probabilities(&Tensor::from_array(gpu, picture)?)?.to_array()?;
        shown.print(i, probabilities.iter().map(|&p| f64::from(p)));
    }
    let rounds = if layers { 7 } else { 0 };
    let bar = common::progress((MOST_RUNS + rounds) as u64);
    bar.set_message("timing");
    let (before, begun) = (gpu.counters(), Instant::now());
    let mut times = Vec::with_capacity(MOST_RUNS);
    while times.len() < MOST_RUNS && (times.len() < 5 || begun.elapsed() < Duration::from_secs(2)) {
        let start = Instant::now();
        network.probabilities(&x)?.to_array()?;
        times.push(start.elapsed().as_secs_f64());
        bar.inc(1);
    }
    bar.set_position(MOST_RUNS as u64);
    let each = (gpu.counters().submissions - before.submissions) / times.len() as u64;
    let rows = network.time_layers(&x, rounds, || bar.inc(1))?;
    bar.finish_and_clear();
    let (runs, time) = (times.len(), common::time(common::median(&mut times)));
    Ok((format!("{time}, probabilities read back (median of {runs} after warm-up, submissions each: {each})"), rows))
}

/// The same on the CPU reference.
fn on_cpu(network: &MobileNetV2, pictures: &[ArrayD<f32>], shown: &Shown<'_>) -> Result<(String, Vec<LayerTime>)> {
    let (mut times, mut rows) = (Vec::new(), Vec::new());
    for (i, picture) in pictures.iter().enumerate() {
        let bar = common::progress(network.layers.len() as u64);
        rows.clear();
        let start = Instant::now();
        let (mut input, mut last) = (picture.shape().to_vec(), start);
        let logits = network.reference(picture, |layer, output| {
            let seconds = last.elapsed().as_secs_f64();
            rows.push(LayerTime { input: input.clone(), output: output.to_vec(), kernel: "reference", seconds });
            (input, last) = (output.to_vec(), Instant::now());
            bar.set_message(layer.name.clone());
            bar.inc(1);
        })?;
        times.push(start.elapsed().as_secs_f64());
        bar.finish_and_clear();
        shown.print(i, reference::softmax(logits.view(), 1)?.iter().copied());
    }
    Ok((common::time(common::median(&mut times)), rows))
}

fn print_layers(network: &MobileNetV2, rows: &[LayerTime]) {
    let flops = network.layers.iter().zip(rows).map(|(layer, row)| layer.op.flops(&row.input, &row.output));
    let flops: Vec<f64> = flops.collect();
    let total: f64 = rows.iter().map(|row| row.seconds).sum();
    let extents = |shape: &[usize]| shape[1..].iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let line = |cells: [&str; 5], time: &str, rate: &str, share: &str| {
        let [layer, operation, input, output, kernel] = cells;
        println!(
            "{layer:<20}  {operation:<16}  {input:<11}  {output:<11}  {kernel:<24}  {time:>9}  {rate:>7}  {share:>6}"
        );
    };
    println!();
    line(["layer", "operation", "input", "output", "kernel"], "time", "GFLOP/s", "share");
    for ((layer, row), flops) in network.layers.iter().zip(rows).zip(&flops) {
        let cells = [&layer.name, &layer.op.describe(), &extents(&row.input), &extents(&row.output), row.kernel];
        let (time, rate) = (common::time(row.seconds), format!("{:.1}", flops / row.seconds / 1e9));
        line(cells, &time, &rate, &format!("{:.1} %", row.seconds / total * 100.0));
    }
    let flops: f64 = flops.iter().sum();
    let rate = format!("{:.1}", flops / total / 1e9);
    line(["sum", &format!("{:.3} GFLOP", flops / 1e9), "", "", ""], &common::time(total), &rate, "100 %");
}
