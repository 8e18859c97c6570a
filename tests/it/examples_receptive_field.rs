//! The example `receptive_field`: what it says of rates, and a picture that shows the holes.

use std::path::PathBuf;

use clap::Parser;
use image::Rgb;

#[path = "../../examples/receptive_field/main.rs"]
#[allow(dead_code)] // Its `main`.
mod receptive_field;

use receptive_field::Options;

/// The picture of rates, as the command would write it.
fn draw(rates: &str) -> (image::RgbImage, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("map.png");
    let args = ["receptive_field", "--rates", rates, "--out", out.to_str().expect("path")];
    receptive_field::run(&Options::try_parse_from(args).expect("arguments")).expect("run");
    (image::open(&out).expect("picture").to_rgb8(), out, folder)
}

/// Pixels of the colour of holes.
fn holes(picture: &image::RgbImage) -> usize {
    picture.pixels().filter(|&&pixel| pixel == Rgb([48, 24, 28])).count()
}

#[test]
fn holes_are_drawn_where_they_are() {
    assert_eq!(holes(&draw("1,2,5").0), 0);
    for rates in ["2,2,2", "2,4,8", "1,2,9"] {
        let red = holes(&draw(rates).0);
        assert!(red > 10_000, "{rates}: {red} pixels of holes");
    }
}

#[test]
fn mistakes_are_errors() {
    for args in [&["--rates", "1,0"][..], &["--kernel", "0"], &["--rates", "9000000"], &["--out", "/nowhere/map.png"]] {
        let options = Options::try_parse_from([&["receptive_field"], args].concat()).expect("arguments");
        assert!(receptive_field::run(&options).is_err(), "{args:?}");
    }
    assert!(Options::try_parse_from(["receptive_field", "--rates", "1,x"]).is_err());
}
