//! Every operator of the convolution family applied to a photo, on one contact sheet.
//!
//! Under each tile stands the largest difference between the GPU and the CPU reference, which computes in double precision.
//!
//! `cargo run --example gallery -- my_photo.jpg --out sheet.png`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use wgconv::Gpu;

#[path = "../common/mod.rs"]
pub(crate) mod common;
mod filters;
pub(crate) mod photo;
pub(crate) mod sheet;
#[path = "../common/text.rs"]
pub(crate) mod text;
pub(crate) mod tiles;

use common::{Error, Result};
use photo::Photo;
use sheet::Cell;

/// Applies every operator of the convolution family to a photo and draws a contact sheet.
#[derive(Parser)]
pub(crate) struct Options {
    /// A photo, PNG or JPEG; a cat unless told.
    image: Option<PathBuf>,
    /// Where the sheet goes, as PNG.
    #[arg(long, value_name = "FILE", default_value = "gallery.png")]
    out: PathBuf,
    /// Part of an adapter's name; else WGCONV_ADAPTER, else the most powerful.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

/// Width and height of a tile.
pub(crate) const SIZE: usize = 256;

fn main() -> ExitCode {
    common::exit(run(&Options::parse()))
}

/// The whole example.
///
/// # Errors
/// A picture that cannot be read, a sheet that cannot be written, an adapter that is not there, a tile beyond its bound.
pub(crate) fn run(options: &Options) -> Result<()> {
    let path = options.image.clone().unwrap_or_else(|| common::data("chelsea.png"));
    let photo = Photo::new(&common::load_picture(&path)?, SIZE);
    common::check_place(&options.out)?;
    let gpu = common::open_gpu(options.adapter.as_deref())?;
    let cells = apply(&path, &photo, gpu.as_ref())?;
    let subtitle = match &gpu {
        Some(gpu) => format!("{}; compared with the CPU reference in f64", common::describe(&gpu.adapter_info())),
        None => "the CPU reference in f64".to_string(),
    };
    let subtitle = format!("wgconv {} on {subtitle}", env!("CARGO_PKG_VERSION"));
    let sheet = sheet::compose(&subtitle, &cells)?;
    common::save_picture(&sheet, &options.out)?;
    println!("\n{}: {} x {} pixels, {} tiles", options.out.display(), sheet.width(), sheet.height(), cells.len());
    Ok(())
}

/// Runs every tile, prints a line for each and gives the cells of the sheet.
fn apply(path: &Path, photo: &Photo, gpu: Option<&Gpu>) -> Result<Vec<Cell>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut cells = vec![Cell {
        picture: photo::colour(&photo.rgb.mapv(f64::from)),
        title: "The photo".to_string(),
        options: [name.to_string(), format!("{:?}, values in 0..1", photo.rgb.shape())],
        footer: "input".to_string(),
        taps: None,
    }];
    let tiles = tiles::all(photo);
    let bar = common::progress(tiles.len() as u64);
    println!("{:<28} {:<38} {:>15} {:>9}", "tile", "operators", "max |gpu - cpu|", "bound");
    for tile in tiles {
        bar.set_message(tile.title);
        let outcome = tile.run(gpu)?;
        let shown = match outcome.difference {
            Some(0.0) => "0".to_string(),
            Some(difference) => format!("{difference:.1e}"),
            None => "-".to_string(),
        };
        bar.suspend(|| println!("{:<28} {:<38} {shown:>15} {:>9.1e}", tile.title, tile.options[0], tile.bound));
        bar.inc(1);
        let footer = match outcome.difference {
            Some(difference) if difference <= tile.bound => format!("max |gpu - cpu| = {shown}"),
            Some(_) => {
                let reason = format!("{}: GPU and reference differ by {shown}, bound {:.1e}", tile.title, tile.bound);
                return Err(Error::Failed(reason));
            }
            None => "CPU reference".to_string(),
        };
        let options = tile.options.map(str::to_string);
        cells.push(Cell { picture: outcome.picture, title: tile.title.to_string(), options, footer, taps: tile.taps });
    }
    bar.finish_and_clear();
    Ok(cells)
}
