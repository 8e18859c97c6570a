//! The kernels that an involution layer makes at some pixels of a photo, and what the layer makes of the photo.
//!
//! Nothing here was trained. The weights of the layer and of the features that it is given are written by hand in `model.rs`, so that
//! its kernels can be explained: the first group averages along the edge that runs through a pixel and widely where there is none, the
//! second sharpens across the edge. A trained layer (Li et al. 2021, RedNet) learns such rules by itself.
//!
//! `cargo run --release --example involution_view -- my_photo.jpg --point 170,110 --out view.png`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[path = "../common/mod.rs"]
pub(crate) mod common;
#[path = "../gallery/filters.rs"]
#[allow(dead_code)] // The gallery's other weights.
mod filters;
pub(crate) mod model;
pub(crate) mod picture;
#[path = "../common/shapes.rs"]
pub(crate) mod shapes;
#[path = "../common/text.rs"]
pub(crate) mod text;
#[path = "../common/view.rs"]
pub(crate) mod view;

use common::{Error, Result, say};
use model::{GROUPS, Model};
use picture::Sheet;
use view::{Cell, Photo, Point};

/// Draws the kernels that an involution layer makes at some pixels of a photo, and the photo that they filter. The layer's weights are
/// written by hand: one group of channels smooths along edges, the other sharpens across them.
#[derive(Parser)]
pub(crate) struct Options {
    /// A photo, PNG or JPEG; a cat unless told.
    image: Option<PathBuf>,
    /// A place to show, in pixels of the photo; may be given up to twelve times. Unless told, places on edges and one on plain ground.
    #[arg(long, value_name = "X,Y")]
    point: Vec<Point>,
    /// Taps of the kernels along each axis, an odd number.
    #[arg(long, value_name = "K", default_value_t = 9, value_parser = odd)]
    kernel: usize,
    /// Longer side of the photo that the layer sees, in elements.
    #[arg(long, value_name = "N", default_value_t = 360, value_parser = clap::value_parser!(u16).range(16..=1024))]
    size: u16,
    /// Where the picture goes, as PNG.
    #[arg(long, value_name = "FILE", default_value = "involution_view.png")]
    out: PathBuf,
    /// Part of an adapter's name; else WGCONV_ADAPTER, else the most powerful.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

fn odd(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(kernel) if (3..=15).contains(&kernel) && kernel % 2 == 1 => Ok(kernel),
        _ => Err("expected an odd number from 3 to 15".to_string()),
    }
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse(), &mut std::io::stdout()))
}

/// Places that are chosen where the user names none, and as many as the sheet has room for.
const POINTS: usize = 6;
const MOST_POINTS: usize = 12;

/// The whole example; what it says goes to `out`.
///
/// # Errors
/// A photo that cannot be read, points outside it, a picture that cannot be written, an adapter that is not there, a result beyond its
/// bound.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let path = options.image.clone().unwrap_or_else(|| common::data("chelsea.png"));
    let photo = Photo::new(&common::load_picture(&path)?, options.size.into())?;
    if options.point.len() > MOST_POINTS {
        return Err(Error::Failed(format!("--point: at most {MOST_POINTS}, got {}", options.point.len())));
    }
    let named = options.point.iter().map(|&point| photo.locate(point)).collect::<Result<Vec<Cell>>>()?;
    common::check_place(&options.out)?;
    let gpu = common::open_gpu(options.adapter.as_deref())?;

    let model = Model::new(options.kernel);
    let bar = common::progress(3);
    bar.set_message("features");
    let features = model.features(&photo.rgb, gpu.as_ref())?;
    bar.inc(1);
    bar.set_message("the layer");
    let (layer, compared) = match &gpu {
        Some(gpu) => {
            let layer = model.on_gpu(gpu, &features)?;
            bar.inc(1);
            bar.set_message("the layer in the reference");
            let compared = layer.compare(&model.on_reference(&features)?, &model, &features)?;
            (layer, compared)
        }
        None => (model.on_reference(&features)?, "CPU reference".to_string()),
    };
    bar.finish_and_clear();

    let points = match named {
        named if named.is_empty() => places(&model, &features, &photo),
        named => named,
    };
    let adapter = gpu.map_or("the CPU reference".to_string(), |gpu| gpu.adapter_info().name);
    let subtitle =
        format!("{}; weights written by hand; wgconv {} on {adapter}", model.describe(), env!("CARGO_PKG_VERSION"));
    let sheet = Sheet { photo: &photo, layer: &layer, points: &points, subtitle, compared };
    let drawn = sheet.draw()?;
    common::save_picture(&drawn, &options.out)?;
    say(out, &sheet.compared)?;
    for (i, &point) in points.iter().enumerate() {
        let Point { x, y } = photo.point(point);
        let ranges: Vec<String> = (0..GROUPS).map(|group| layer.kernel(group, point).range()).collect();
        say(out, format!("{}: ({x}, {y}): weights of group 1 {}, of group 2 {}", i + 1, ranges[0], ranges[1]))?;
    }
    say(out, format!("{}: {} x {} pixels", options.out.display(), drawn.width(), drawn.height()))
}

/// The clearest place of each direction apart from each other, in the end one on plain ground.
fn places(model: &Model, features: &wgconv::ndarray::ArrayD<f32>, photo: &Photo) -> Vec<Cell> {
    let extents = photo.extents();
    let apart = (extents.0.max(extents.1) / 9).max(2 * model.kernel());
    let mut chosen: Vec<Cell> = vec![];
    let far = |chosen: &[Cell], cell: &Cell| {
        chosen.iter().all(|other| cell.0.abs_diff(other.0).max(cell.1.abs_diff(other.1)) >= apart)
    };
    for clearness in model.clearness(features) {
        if chosen.len() == POINTS {
            break;
        }
        let peaks = view::peaks(&clearness, extents, apart, 2 * POINTS);
        chosen.extend(peaks.into_iter().find(|cell| far(&chosen, cell)));
    }
    chosen
}
