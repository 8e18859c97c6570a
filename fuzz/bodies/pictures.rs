//! Pictures, as each example reads and scales them. The decoders are the crate image's; what is made of their pixels is the examples'.

use std::io::Cursor;
use std::path::Path;

use image::ImageReader;

use super::examples::{classify, deform_view, detect_text, gallery, shots};
use super::files::with_file;
use deform_view::view;

/// Pixels of the largest picture that is decoded: a few bytes may stand for gigabytes, which takes time and says nothing.
const MOST_PIXELS: u64 = 1 << 16;

pub fn run(data: &[u8]) {
    let reader = ImageReader::new(Cursor::new(data)).with_guessed_format().expect("bytes in memory");
    let small = |(width, height)| u64::from(width) * u64::from(height) <= MOST_PIXELS;
    if reader.into_dimensions().is_ok_and(small) {
        with_file(data, picture);
    }
}

fn picture(path: &Path) {
    let prepared = classify::picture::prepare(path);
    let frames = shots::clip::read(&[path.to_path_buf()], || {});
    let Ok(picture) = detect_text::common::load_picture(path) else {
        assert!(prepared.is_err() && frames.is_err());
        return;
    };
    if let Ok(prepared) = prepared {
        assert_eq!(prepared.shape(), [1, 3, classify::network::SIZE, classify::network::SIZE]);
        assert!(prepared.iter().all(|value| value.abs() < 3.0));
    }
    let frames = frames.expect("a picture");
    assert_eq!(frames[0].len(), shots::network::HEIGHT * shots::network::WIDTH * 3);
    if let Ok(prepared) = detect_text::picture::prepare(&picture.to_rgb8(), 64) {
        let multiple = detect_text::network::MULTIPLE;
        assert!(prepared.shape()[2..].iter().all(|&extent| extent > 0 && extent % multiple == 0));
    }
    let photo = gallery::photo::Photo::new(&picture, 32);
    assert_eq!((photo.rgb.shape(), photo.detail(16).shape()), (&[1, 3, 32, 32][..], &[1, 3, 16, 16][..]));
    let photo = view::Photo::new(&picture, 16).expect("a picture that is not empty");
    let (rows, columns) = photo.extents();
    assert_eq!(rows.max(columns), 16);
    for cell in [(0, 0), (rows - 1, columns - 1)] {
        let point = photo.point(cell);
        assert!(photo.locate(point).is_ok(), "{cell:?} is {point:?}");
        assert_eq!(photo.window(cell, 5).len(), 25);
    }
}
