//! Finds lines of text in a picture: PP-OCRv4's detector, a network of pointwise, depthwise 3x3 and 5x5 and transposed convolutions.
//!
//! `cargo run --release --example detect_text -- letter.jpg --out boxes.png`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use image::{Rgb, RgbImage};
use wgconv::Gpu;
use wgconv::ndarray::{ArrayD, ArrayView2, Axis, Ix2};

#[path = "../common/mod.rs"]
pub(crate) mod common;
#[path = "../common/network.rs"]
pub(crate) mod layers;
pub(crate) mod network;
pub(crate) mod picture;
pub(crate) mod regions;
#[path = "../common/text.rs"]
pub(crate) mod text;

use common::{Error, Result};
use layers::Value;
use network::Detector;
use regions::Region;

/// Finds lines of text in a picture, with PP-OCRv4's detector on the GPU, and draws boxes around them.
#[derive(Parser)]
pub(crate) struct Options {
    /// A picture, PNG or JPEG; a page that is drawn for it unless given.
    image: Option<PathBuf>,
    /// Where the picture with the boxes goes, as PNG.
    #[arg(long, value_name = "FILE", default_value = "detect_text.png")]
    out: PathBuf,
    /// Longest side of the picture as the network sees it, in pixels: more finds smaller letters and takes longer.
    #[arg(long, value_name = "PIXELS", default_value_t = 960, value_parser = clap::value_parser!(u16).range(32..=8192))]
    side: u16,
    /// Part of an adapter's name; else WGCONV_ADAPTER, else the most powerful.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Folder with ppocr_det.safetensors; examples/data of the repository unless given.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse()).map(|_| ()))
}

/// The whole example; the boxes in pixels of the picture, as left, top, right and bottom.
///
/// # Errors
/// Weights or a picture that cannot be read, a picture that cannot be written, an adapter that is not there.
pub(crate) fn run(options: &Options) -> Result<Vec<[u32; 4]>> {
    let weights = options.data.as_ref().map_or_else(|| common::data(WEIGHTS), |folder| folder.join(WEIGHTS));
    let archive = common::load_safetensors(&weights)?;
    let mut sheet = match &options.image {
        Some(path) => common::load_picture(path)?.into_rgb8(),
        None => picture::page()?,
    };
    let name = options.image.as_deref().unwrap_or(Path::new("a page of its own"));
    let input = picture::prepare(&sheet, options.side.into()).map_err(|error| match error {
        Error::Failed(reason) => Error::Contents { path: name.to_path_buf(), reason },
        other => other,
    })?;
    let gpu = common::open_gpu(options.adapter.as_deref())?;
    let adapter = gpu
        .as_ref()
        .map_or("none, CPU reference in double precision".into(), |gpu| common::describe(&gpu.adapter_info()));
    println!("network    PP-OCRv4 text detection, mobile");
    println!("adapter    {adapter}");
    let (map, time) = infer(&Detector::new(&archive, gpu.as_ref())?, gpu.as_ref(), &input)?;
    println!(
        "picture    {}, {} x {}, seen as {} x {}",
        name.display(),
        sheet.width(),
        sheet.height(),
        input.shape()[3],
        input.shape()[2]
    );
    println!("inference  {time}\n");
    let map = map.index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0).into_dimensionality::<Ix2>();
    let boxes = show(&mut sheet, map.map_err(|error| Error::Failed(error.to_string()))?.view());
    common::save_picture(&sheet, &options.out)?;
    println!("\n{}: {} x {} pixels", options.out.display(), sheet.width(), sheet.height());
    Ok(boxes)
}

const WEIGHTS: &str = "ppocr_det.safetensors";
/// Most inferences that are timed; fewer where they are slow.
const MOST_RUNS: usize = 11;

/// The map, and how long one inference takes, in words.
fn infer(network: &Detector, gpu: Option<&Gpu>, input: &ArrayD<f32>) -> Result<(ArrayD<f32>, String)> {
    let spinner = common::busy(if gpu.is_some() { "compiling kernels, packing weights" } else { "convolving" });
    let x = Value::new(gpu, input)?;
    let start = Instant::now();
    let map = network.probabilities(&x)?.read()?;
    let first = start.elapsed().as_secs_f64();
    spinner.finish_and_clear();
    let Some(gpu) = gpu else { return Ok((map, common::time(first))) };
    let (before, begun, mut times) = (gpu.counters(), Instant::now(), Vec::new());
    while times.len() < MOST_RUNS && (times.len() < 3 || begun.elapsed() < Duration::from_secs(2)) {
        let start = Instant::now();
        network.probabilities(&x)?.read()?;
        times.push(start.elapsed().as_secs_f64());
    }
    let each = (gpu.counters().submissions - before.submissions) / times.len() as u64;
    let (runs, time) = (times.len(), common::time(common::median(&mut times)));
    Ok((map, format!("{time}, map read back (median of {runs} after warm-up, submissions each: {each})")))
}

/// Draws and prints the boxes.
fn show(sheet: &mut RgbImage, map: ArrayView2<'_, f32>) -> Vec<[u32; 4]> {
    let found = regions::regions(map);
    let (across, down) =
        (f64::from(sheet.width()) / map.dim().1 as f64, f64::from(sheet.height()) / map.dim().0 as f64);
    let scaled = |region: &Region| {
        let (left, top) = ((region.left * across).floor() as u32, (region.top * down).floor() as u32);
        let (right, bottom) = ((region.right * across).ceil() as u32, (region.bottom * down).ceil() as u32);
        [left, top, right.min(sheet.width()), bottom.min(sheet.height())]
    };
    let boxes: Vec<_> = found.iter().map(scaled).collect();
    println!("{} lines of text", boxes.len());
    for (region, &[left, top, right, bottom]) in found.iter().zip(&boxes) {
        println!("  {left:>5}, {top:>5}   {:>4} x {:<4}  {:>5.1} %", right - left, bottom - top, region.score * 100.0);
    }
    for &edges in &boxes {
        picture::frame(sheet, edges, Rgb([230, 40, 60]));
    }
    boxes
}
