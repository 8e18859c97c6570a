//! From a picture to `[1, C, H, W]` arrays of values in 0..1, and back.

use std::f64::consts::TAU;

use image::imageops::{FilterType, crop_imm, resize};
use image::{DynamicImage, Rgb, RgbImage};
use wgconv::ndarray::{Array4, ArrayD, ArrayView4, Axis, Ix4, concatenate, s};

use super::filters::gaussian;

/// A square photo.
pub struct Photo {
    /// `[1, 3, size, size]`
    pub rgb: ArrayD<f32>,
    /// `[1, 1, size, size]`, ITU-R BT.601
    pub luminance: ArrayD<f32>,
    pub size: usize,
}

impl Photo {
    /// The square in the middle of a picture, at `size` pixels a side.
    pub fn new(picture: &DynamicImage, size: usize) -> Self {
        let picture = picture.to_rgb8();
        let (width, height) = picture.dimensions();
        let side = width.min(height);
        let middle = crop_imm(&picture, (width - side) / 2, (height - side) / 2, side, side).to_image();
        let small = resize(&middle, size as u32, size as u32, FilterType::Lanczos3);
        let value = |(_, c, y, x): (usize, usize, usize, usize)| f32::from(small[(x as u32, y as u32)][c]) / 255.0;
        let rgb = Array4::from_shape_fn((1, 3, size, size), value);
        let weigh = |(_, _, y, x)| 0.299 * rgb[[0, 0, y, x]] + 0.587 * rgb[[0, 1, y, x]] + 0.114 * rgb[[0, 2, y, x]];
        let luminance = Array4::from_shape_fn((1, 1, size, size), weigh);
        Self { rgb: rgb.into_dyn(), luminance: luminance.into_dyn(), size }
    }

    /// The photo twice along the channels, `[1, 6, size, size]`.
    pub fn twice(&self) -> ArrayD<f32> {
        concatenate![Axis(1), self.rgb, self.rgb]
    }

    /// A square of `side` pixels, at most a little over half the photo's, in the middle of the half whose luminance varies most around
    /// its own middle: there is something to see in it.
    pub fn detail(&self, side: usize) -> ArrayD<f32> {
        let half = self.size / 2;
        let weights = gaussian(half, half as f32 / 5.0);
        let variance = |&(top, left): &(usize, usize)| {
            let part = self.luminance.slice(s![0, 0, top..top + half, left..left + half]);
            let mean = (&part * &weights).sum();
            (part.mapv(|l| (l - mean).powi(2)) * &weights).sum()
        };
        let step = (self.size / 64).max(1);
        let ends = || (0..=self.size - half).step_by(step);
        let corners = ends().flat_map(|top| ends().map(move |left| (top, left)));
        let (top, left) = corners.max_by(|a, b| variance(a).total_cmp(&variance(b))).unwrap_or((0, 0));
        let [top, left] = [top, left].map(|corner| (corner + half / 2).saturating_sub(side / 2).min(self.size - side));
        self.rgb.slice(s![.., .., top..top + side, left..left + side]).to_owned().into_dyn()
    }
}

/// Three channels as red, green and blue.
pub fn colour(y: &ArrayD<f64>) -> RgbImage {
    paint(y, |y, i, j| [0, 1, 2].map(|c| y[[0, c, i, j]]))
}

/// Three channels of small values, brightened.
pub fn glow(y: &ArrayD<f64>) -> RgbImage {
    paint(y, |y, i, j| [0, 1, 2].map(|c| (2.0 * y[[0, c, i, j]].max(0.0)).powf(0.7)))
}

/// One channel as grey.
pub fn grey(y: &ArrayD<f64>) -> RgbImage {
    paint(y, |y, i, j| [y[[0, 0, i, j]]; 3])
}

/// Channels 0 to 2 above the diagonal, 3 to 5 below it, a white line between.
pub fn halves(y: &ArrayD<f64>) -> RgbImage {
    paint(y, |y, i, j| match (i + j + 1).abs_diff(y.dim().3) {
        0 => [1.0; 3],
        _ if i + j + 1 < y.dim().3 => [0, 1, 2].map(|c| y[[0, c, i, j]]),
        _ => [3, 4, 5].map(|c| y[[0, c, i, j]]),
    })
}

/// Two channels as a gradient: its direction is the hue, its length the brightness.
pub fn gradient(y: &ArrayD<f64>) -> RgbImage {
    paint(y, |y, i, j| {
        let (dx, dy) = (y[[0, 0, i, j]], y[[0, 1, i, j]]);
        let (turn, brightness) = (dy.atan2(dx) / TAU, (4.0 * dx.hypot(dy)).min(1.0).powf(0.8));
        [0.0, 1.0 / 3.0, 2.0 / 3.0].map(|third| brightness * (0.62 + 0.38 * ((turn - third) * TAU).cos()))
    })
}

fn paint(y: &ArrayD<f64>, pixel: impl Fn(&ArrayView4<f64>, usize, usize) -> [f64; 3]) -> RgbImage {
    let Ok(y) = y.view().into_dimensionality::<Ix4>() else { return RgbImage::new(1, 1) };
    let (_, _, height, width) = y.dim();
    RgbImage::from_fn(width as u32, height as u32, |j, i| {
        Rgb(pixel(&y, i as usize, j as usize).map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8))
    })
}
