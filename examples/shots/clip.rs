//! Frames: of a folder, or of a clip that pans over photos.

use std::path::{Path, PathBuf};

use image::RgbImage;
use image::imageops::{FilterType, crop_imm, resize};

use super::common::{self, Error, Result};
use super::network::{HEIGHT, WIDTH};

/// A frame as the network sees it.
fn frame(picture: &RgbImage) -> Vec<u8> {
    resize(picture, WIDTH as u32, HEIGHT as u32, FilterType::Triangle).into_raw()
}

/// The pictures of a folder, by name, numbers in names by their value.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::Io { path: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if ["png", "jpg", "jpeg"].contains(&ending.as_str()) {
            files.push(path);
        }
    }
    if files.is_empty() {
        let reason = "expected a folder of frames, found no PNG or JPEG in it".into();
        return Err(Error::Contents { path: folder.to_path_buf(), reason });
    }
    files.sort_by_cached_key(|path| sort_key(&path.file_name().unwrap_or_default().to_string_lossy()));
    Ok(files)
}

/// A name in which numbers compare by their value: frame_9 comes before frame_10.
fn sort_key(name: &str) -> (String, String) {
    let (mut key, mut digits) = (String::new(), String::new());
    for c in name.chars().chain(['\0']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if !digits.is_empty() {
            // Of numbers without zeros in front, the one with more digits is the larger.
            let number = digits.trim_start_matches('0');
            key += &format!("{:0>5}{number}", number.len());
            digits.clear();
        }
        key.push(c);
    }
    (key, name.to_string())
}

/// Reads frames; `after` is called behind each.
pub fn read(files: &[PathBuf], mut after: impl FnMut()) -> Result<Vec<Vec<u8>>> {
    let read = |path: &PathBuf| {
        let frame = frame(&common::load_picture(path)?.into_rgb8());
        after();
        Ok(frame)
    };
    files.iter().map(read).collect()
}

/// Photo, frames, where the camera begins and where it ends: the middle's column and row and the view's width, as parts of the photo.
type Shot = (&'static str, usize, [f32; 3], [f32; 3]);

const SHOTS: [Shot; 4] = [
    ("coffee.png", 13, [0.40, 0.50, 0.70], [0.55, 0.48, 0.70]),
    ("chelsea.png", 10, [0.45, 0.45, 0.80], [0.50, 0.50, 0.66]),
    ("camera.png", 15, [0.62, 0.45, 0.60], [0.45, 0.40, 0.60]),
    ("coffee.png", 12, [0.60, 0.45, 0.40], [0.50, 0.62, 0.40]),
];

/// A clip of four shots with hard cuts between them, and the last frame of every shot but the last.
pub fn synthetic() -> Result<(Vec<Vec<u8>>, Vec<usize>)> {
    let (mut frames, mut cuts) = (Vec::new(), Vec::new());
    for (photo, count, begin, end) in SHOTS {
        let photo = common::load_picture(&common::data(photo))?.into_rgb8();
        for i in 0..count {
            let part = i as f32 / (count - 1) as f32;
            frames.push(view(&photo, std::array::from_fn(|j| begin[j] + (end[j] - begin[j]) * part)));
        }
        cuts.push(frames.len() - 1);
    }
    cuts.pop();
    Ok((frames, cuts))
}

/// What the camera sees of a photo.
fn view(photo: &RgbImage, [column, row, width]: [f32; 3]) -> Vec<u8> {
    let (across, down) = (photo.width() as f32, photo.height() as f32);
    let (wide, high) = (width * across, width * across * HEIGHT as f32 / WIDTH as f32);
    let left = (column * across - wide / 2.0).clamp(0.0, across - wide);
    let top = (row * down - high / 2.0).clamp(0.0, (down - high).max(0.0));
    frame(&crop_imm(photo, left as u32, top as u32, wide as u32, high as u32).to_image())
}
