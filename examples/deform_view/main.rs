//! Where a deformable convolution samples a photo, for some of its outputs: the regular grid, version 1 with offsets, version 2 with
//! offsets and a mask.
//!
//! Nothing here was trained. The weights that make offsets and masks are written by hand in `model.rs`, so that each can be explained:
//! a tap slides up the slope towards the nearest edge of the photo, and the mask of a tap is small where what it samples has another
//! colour than the output's own place, as across an edge. A trained layer learns such rules by itself.
//!
//! `cargo run --release --example deform_view -- my_photo.jpg --point 170,110 --out view.png`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use wgconv::Gpu;
use wgconv::ndarray::ArrayD;

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
use model::{Field, Geometry, Model};
use picture::{Sheet, View};
use view::{Cell, Photo, Point};

/// Draws where a deformable convolution samples a photo: the regular grid, version 1, and version 2 with dots sized by the mask. The
/// weights that make the offsets are written by hand: taps slide to edges, and the mask fades across them.
#[derive(Parser)]
pub(crate) struct Options {
    /// A photo, PNG or JPEG; a cat unless told.
    image: Option<PathBuf>,
    /// A place to show, in pixels of the photo; may be given several times, the first is shown magnified. Unless told, places
    /// beside strong edges.
    #[arg(long, value_name = "X,Y")]
    point: Vec<Point>,
    /// Taps of the kernel along each axis, an odd number.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = odd)]
    kernel: usize,
    /// Elements from one tap to the next, before they are displaced.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=32))]
    dilation: u8,
    /// Longer side of the photo that the layer sees, in elements.
    #[arg(long, value_name = "N", default_value_t = 240, value_parser = clap::value_parser!(u16).range(16..=1024))]
    size: u16,
    /// Where the picture goes, as PNG.
    #[arg(long, value_name = "FILE", default_value = "deform_view.png")]
    out: PathBuf,
    /// Part of an adapter's name; else WGCONV_ADAPTER, else the most powerful.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

fn odd(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(kernel) if kernel <= 9 && kernel % 2 == 1 => Ok(kernel),
        _ => Err("expected 1, 3, 5, 7 or 9".to_string()),
    }
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse(), &mut std::io::stdout()))
}

/// Places that are chosen where the user names none.
const POINTS: usize = 6;

/// The whole example; what it says goes to `out`.
///
/// # Errors
/// A photo that cannot be read, points outside it, a picture that cannot be written, an adapter that is not there, a result beyond its
/// bound.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let path = options.image.clone().unwrap_or_else(|| common::data("chelsea.png"));
    let photo = Photo::new(&common::load_picture(&path)?, options.size.into())?;
    let named = options.point.iter().map(|&point| photo.locate(point)).collect::<Result<Vec<Cell>>>()?;
    common::check_place(&options.out)?;
    let gpu = common::open_gpu(options.adapter.as_deref())?;
    let geometry = Geometry { kernel: options.kernel, dilation: options.dilation.into() };
    let views = look(&photo, geometry, gpu.as_ref())?;
    let points = match named {
        named if named.is_empty() => {
            view::peaks(&views.interest, photo.extents(), geometry.reach() + geometry.reach() / 2, POINTS)
        }
        named => named,
    };
    let adapter = gpu.map_or("the CPU reference".to_string(), |gpu| gpu.adapter_info().name);
    let sheet = Sheet { photo: &photo, geometry, points: &points, subtitle: subtitle(&adapter, &photo, geometry) };
    let drawn = sheet.draw(&views.all)?;
    common::save_picture(&drawn, &options.out)?;
    if let Some([offset, mask]) = views.made_differences {
        say(out, format!("offsets: max |gpu - cpu| = {offset:.1e} elements; masks: {mask:.1e}"))?;
    }
    for view in &views.all {
        say(out, view.describe(geometry, &points))?;
    }
    say(out, format!("{}: {} x {} pixels", options.out.display(), drawn.width(), drawn.height()))
}

fn subtitle(adapter: &str, photo: &Photo, geometry: Geometry) -> String {
    let (rows, columns) = photo.extents();
    let Geometry { kernel, dilation } = geometry;
    let layer = format!("DeformConv2d {kernel}x{kernel}, dilation {dilation}, on [1, 3, {rows}, {columns}]");
    format!("{layer}; offsets by weights written by hand; wgconv {} on {adapter}", env!("CARGO_PKG_VERSION"))
}

/// What the three versions of the layer do.
pub(crate) struct Views {
    pub all: Vec<View>,
    /// Where there is something to see, `[1, 1, H, W]`.
    pub interest: ArrayD<f32>,
    /// `max |gpu - cpu|` of offsets and of masks, where there is a GPU.
    pub made_differences: Option<[f64; 2]>,
}

/// Makes offsets and masks, runs the layer with them, and compares all with the reference.
pub(crate) fn look(photo: &Photo, geometry: Geometry, gpu: Option<&Gpu>) -> Result<Views> {
    let model = Model::new(geometry);
    let bar = common::progress(5);
    bar.set_message("offsets and masks by the reference");
    let want = model.on_reference(&photo.rgb)?;
    bar.inc(1);
    let (made, made_differences) = match gpu {
        Some(gpu) => {
            bar.set_message("offsets and masks on the GPU");
            let made = model.on_gpu(gpu, &photo.rgb)?;
            let differences = made.differences(&want);
            (made, Some(differences))
        }
        None => (want, None),
    };
    bar.inc(1);
    let interest = made.interest();
    let regular = Field { offset: ArrayD::zeros(made.offset.shape()), mask: None };
    let v1 = Field { offset: made.offset.clone(), mask: None };
    let v2 = Field { offset: made.offset, mask: Some(made.mask) };
    let mut all = vec![];
    for (title, field) in [("Regular", regular), ("Deformable v1", v1), ("Deformable v2", v2)] {
        bar.set_message(title);
        let difference = model.layer_difference(&photo.rgb, &field, gpu)?;
        bar.inc(1);
        // Not `>`, which a NaN would pass.
        if difference.is_some_and(|difference| !matches!(difference.partial_cmp(&model.bound()), Some(o) if o.is_le()))
        {
            let reason = format!("{title}: GPU and reference differ by {difference:?}, bound {:.1e}", model.bound());
            return Err(Error::Failed(reason));
        }
        all.push(View { title, field, difference });
    }
    bar.finish_and_clear();
    Ok(Views { all, interest, made_differences })
}
