//! The `gallery` example: every tile against the reference, the sheet, and what it says of bad files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Parser;
use wgconv::Tensor;
use wgconv::ndarray::ArrayD;

use crate::common::gpu;
use gallery::common::{Error, data, load_picture};
use gallery::photo::Photo;
use gallery::sheet::{Cell, compose};
use gallery::text::Type;
use gallery::tiles::{self, Tile};

#[allow(dead_code)] // Its main.
#[path = "../../examples/gallery/main.rs"]
pub(crate) mod gallery;

/// Small, for the reference's sake.
const SIZE: usize = 32;

fn photo() -> Photo {
    Photo::new(&load_picture(&data("chelsea.png")).expect("the cat"), SIZE)
}

#[test]
fn every_tile_is_within_its_bound() {
    let tiles = tiles::all(&photo());
    assert_eq!(tiles.len(), 19);
    for tile in tiles {
        let outcome = tile.run(Some(&gpu())).expect(tile.title);
        let difference = outcome.difference.expect("there is a GPU");
        assert!(difference <= tile.bound, "{}: {difference:e} is over {:e}", tile.title, tile.bound);
        assert!(tile.bound < 2e-4, "{}: a bound of {:e} says nothing", tile.title, tile.bound);
        assert_eq!(outcome.picture.dimensions(), (SIZE as u32, SIZE as u32), "{}", tile.title);

        // Without an adapter the reference draws the same picture.
        let alone = tile.run(None).expect(tile.title);
        assert_eq!(alone.difference, None);
        let levels = outcome.picture.iter().zip(alone.picture.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(levels <= Some(1), "{}: {levels:?}", tile.title);
    }
}

#[test]
fn tiles_differ_from_the_photo_and_from_each_other() {
    let photo = photo();
    let tiles = tiles::all(&photo);
    let titles: BTreeSet<_> = tiles.iter().map(|tile| tile.title).collect();
    assert_eq!(titles.len(), tiles.len());
    let mut seen = vec![gallery::photo::colour(&photo.rgb.mapv(f64::from))];
    for tile in tiles {
        let picture = tile.run(None).expect(tile.title).picture;
        assert!(!seen.contains(&picture), "{}", tile.title);
        seen.push(picture);
    }
}

#[test]
fn a_wrong_tile_shows() {
    let tile = |wrong: fn(&Tensor) -> wgconv::Result<Tensor>| Tile {
        gpu: Box::new(wrong),
        ..tiles::all(&photo()).pop().expect("the last tile")
    };
    let unfiltered = tile(|x| Ok(x.clone())).run(Some(&gpu())).expect("runs");
    assert!(unfiltered.difference.is_some_and(|difference| difference > 0.01));
    let nan_first = |x: &Tensor| {
        let mut y = ArrayD::zeros(x.shape());
        y[[0, 0, 0, 0]] = f32::NAN;
        Tensor::from_array(x.gpu(), &y)
    };
    for wrong in [nan_first, |x: &Tensor| Tensor::zeros(x.gpu(), &[1, 3, 1, 1])] {
        let outcome = tile(wrong).run(Some(&gpu())).expect("runs");
        assert!(outcome.difference.is_some_and(f64::is_nan));
    }
}

#[test]
fn captions_fit_their_tiles() {
    let (title, small) = (Type::light(18.5).expect("a font"), Type::mono(12.0).expect("a font"));
    for tile in tiles::all(&photo()) {
        assert!(title.width(tile.title) <= gallery::SIZE as f32, "{}", tile.title);
        for line in tile.options {
            assert!(small.width(line) <= gallery::SIZE as f32, "{line}");
        }
    }
}

#[test]
fn the_sheet_holds_the_pictures() {
    let cell = |value: u8| Cell {
        picture: image::RgbImage::from_pixel(40, 40, image::Rgb([value, 0, 99])),
        title: "A title that is wider than its tile".to_string(),
        options: ["an option".to_string(), String::new()],
        footer: "max |gpu - cpu| = 0".to_string(),
        taps: None,
    };
    let cells: Vec<_> = (0..6).map(|i| cell(200 + i)).collect();
    let sheet = compose("subtitle", &cells).expect("a sheet");
    for i in 0..6u8 {
        let count = sheet.pixels().filter(|pixel| pixel.0 == [200 + i, 0, 99]).count();
        assert_eq!(count, 1600, "picture {i}");
    }
    assert!(compose("nothing", &[]).is_ok());
}

/// A file in the target's folder for temporary files.
fn temporary(name: &str, contents: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, contents).expect("a temporary file");
    path
}

fn run(image: &Path, out: &Path) -> Result<(), Error> {
    let options = gallery::Options::parse_from([Path::new("gallery"), image, "--out".as_ref(), out]);
    gallery::run(&options)
}

#[test]
fn bad_pictures_are_errors() {
    let whole = std::fs::read(data("chelsea.png")).expect("the cat");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gallery_not_written.png");
    let missing = run(Path::new("no/such/photo.png"), &out).expect_err("missing");
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
    let broken = [
        ("gallery_cut.png", &whole[..whole.len() / 2]),
        ("gallery_header.png", &whole[..20]),
        ("gallery_empty.png", &[]),
        ("gallery_text.jpg", b"not a picture at all"),
    ];
    for (name, contents) in broken {
        let error = run(&temporary(name, contents), &out).expect_err(name);
        assert!(matches!(error, Error::Picture { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(!out.exists());
}

#[test]
fn pictures_of_any_shape_will_do() {
    for (width, height) in [(1, 1), (300, 2), (5, 70)] {
        let picture = image::DynamicImage::new_luma8(width, height);
        let photo = Photo::new(&picture, SIZE);
        assert_eq!(photo.rgb.shape(), [1, 3, SIZE, SIZE]);
        assert_eq!(tiles::all(&photo).len(), 19);
    }
}

#[test]
fn a_sheet_that_cannot_be_written_is_an_error() {
    for out in ["no/such/folder/sheet.png", env!("CARGO_TARGET_TMPDIR")].map(Path::new) {
        let error = run(&data("chelsea.png"), out).expect_err("no place for a file");
        assert!(matches!(&error, Error::Contents { path, .. } if path == out), "{error}");
    }
}
