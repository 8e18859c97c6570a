//! From a picture to the network's input, as torchvision prepares it.

use std::path::Path;

use image::imageops::{FilterType, crop_imm, resize};
use wgconv::ndarray::ArrayD;

use super::common::{Error, Result, load_picture};
use super::network::SIZE;

/// Length of the shorter side before the crop.
const SHORTER: u32 = 256;
/// How many times as long as wide a picture may be: the longer side grows with it.
const MOST_OBLONG: u32 = 16;
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Shorter side to 256 (bilinear over the whole footprint), centre crop 224, mean and deviation of ImageNet: `[1, 3, 224, 224]`.
pub fn prepare(path: &Path) -> Result<ArrayD<f32>> {
    let picture = load_picture(path)?.into_rgb8();
    let (width, height) = picture.dimensions();
    let shorter = width.min(height);
    if shorter == 0 || width.max(height) / shorter > MOST_OBLONG {
        let reason = format!("expected a picture at most {MOST_OBLONG} times as long as wide, got {width}x{height}");
        return Err(Error::Contents { path: path.to_path_buf(), reason });
    }
    let scaled = |side: u32| (f64::from(side) * f64::from(SHORTER) / f64::from(shorter)).round() as u32;
    let (width, height) = (scaled(width), scaled(height));
    let resized = resize(&picture, width, height, FilterType::Triangle);
    let size = SIZE as u32;
    let crop = crop_imm(&resized, (width - size) / 2, (height - size) / 2, size, size).to_image();
    Ok(ArrayD::from_shape_fn(vec![1, 3, SIZE, SIZE], |index| {
        let (channel, row, column) = (index[1], index[2], index[3]);
        let value = f32::from(crop.get_pixel(column as u32, row as u32)[channel]) / 255.0;
        (value - MEAN[channel]) / DEVIATION[channel]
    }))
}
