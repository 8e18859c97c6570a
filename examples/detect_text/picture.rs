//! From a picture to the network's input, and a page to look at where no picture is given.

use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use wgconv::ndarray::ArrayD;

use super::common::{Error, Result};
use super::network::MULTIPLE;
use super::text::{Type, fill, mix};

/// How many times as long as wide a picture may be: the shorter side is drawn out to [`MULTIPLE`] pixels at least.
const MOST_OBLONG: u32 = 32;

/// `[1, 3, H, W]` in -1..1, blue first, as PaddleOCR prepares it: the longer side at most `side`, both multiples of [`MULTIPLE`].
pub fn prepare(picture: &RgbImage, side: usize) -> Result<ArrayD<f32>> {
    let (width, height) = picture.dimensions();
    let (shorter, longer) = (width.min(height), width.max(height));
    if shorter == 0 || longer / shorter > MOST_OBLONG {
        let reason = format!("expected a picture at most {MOST_OBLONG} times as long as wide, got {width}x{height}");
        return Err(Error::Failed(reason));
    }
    let scale = (side as f64 / f64::from(longer)).min(1.0);
    let fit = |edge: u32| ((f64::from(edge) * scale / MULTIPLE as f64).round() as usize).max(1) * MULTIPLE;
    let (width, height) = (fit(width), fit(height));
    let pixels = resize(picture, width as u32, height as u32, FilterType::Triangle);
    Ok(ArrayD::from_shape_fn(vec![1, 3, height, width], |at| {
        f32::from(pixels.get_pixel(at[3] as u32, at[2] as u32)[2 - at[1]]) / 127.5 - 1.0
    }))
}

const PAPER: Rgb<u8> = Rgb([243, 240, 230]);
const INK: Rgb<u8> = Rgb([35, 38, 46]);
const BLUE: Rgb<u8> = Rgb([32, 58, 104]);

/// A page with a title, a few lines, a coloured band and words at an angle.
pub fn page() -> Result<RgbImage> {
    let mut page = RgbImage::from_pixel(640, 448, PAPER);
    Type::light(44.0)?.draw(&mut page, (36.0, 66.0), BLUE, "Convolution on any GPU");
    let small = Type::mono(17.0)?;
    let lines = ["standard, dilated and grouped,", "depthwise, pointwise, transposed,", "deformable, and involution"];
    for (i, line) in lines.iter().enumerate() {
        small.draw(&mut page, (38.0, 122.0 + 34.0 * i as f32), INK, line);
    }
    fill(&mut page, (0, 228), (640, 56), BLUE);
    Type::light(30.0)?.draw(&mut page, (60.0, 266.0), Rgb([250, 226, 130]), "one set of shaders");
    Type::light(30.0)?.draw(&mut page, (420.0, 266.0), Rgb([236, 240, 248]), "no CUDA");
    turned(&mut page, (130.0, 366.0), 14.0, "rotated", Rgb([156, 44, 40]))?;
    turned(&mut page, (330.0, 366.0), -20.0, "words", INK)?;
    turned(&mut page, (510.0, 366.0), 8.0, "as well", Rgb([24, 110, 70]))?;
    Ok(page)
}

/// Draws a text with its middle at (x, y), turned clockwise by so many degrees.
fn turned(page: &mut RgbImage, (x, y): (f32, f32), degrees: f32, text: &str, ink: Rgb<u8>) -> Result<()> {
    let font = Type::light(38.0)?;
    let (width, height) = (font.width(text) + 8.0, 60.0);
    let mut flat = RgbImage::new(width as u32, height as u32);
    font.draw_centred(&mut flat, (width / 2.0, height / 2.0), Rgb([255; 3]), text);
    let (sin, cos) = degrees.to_radians().sin_cos();
    for (column, row, pixel) in page.enumerate_pixels_mut() {
        let (right, down) = (column as f32 - x, row as f32 - y);
        let (u, v) = (cos * right + sin * down + width / 2.0, cos * down - sin * right + height / 2.0);
        *pixel = mix(*pixel, ink, sample(&flat, u, v));
    }
    Ok(())
}

/// How much of a pixel at (u, v) a text covers, between the four pixels around it.
fn sample(flat: &RgbImage, u: f32, v: f32) -> f32 {
    let at = |column: f32, row: f32| {
        let inside = column >= 0.0 && row >= 0.0;
        let pixel = inside.then(|| flat.get_pixel_checked(column as u32, row as u32)).flatten();
        pixel.map_or(0.0, |pixel| f32::from(pixel[0]) / 255.0)
    };
    let (left, top) = (u.floor(), v.floor());
    let (right, down) = (u - left, v - top);
    let line = |row| at(left, row) * (1.0 - right) + at(left + 1.0, row) * right;
    line(top) * (1.0 - down) + line(top + 1.0) * down
}

/// Draws the frame of a box from (left, top) to just before (right, bottom).
pub fn frame(page: &mut RgbImage, [left, top, right, bottom]: [u32; 4], ink: Rgb<u8>) {
    const LINE: u32 = 2;
    let (width, height) = (right - left, bottom - top);
    fill(page, (left, top), (width, LINE.min(height)), ink);
    fill(page, (left, bottom.saturating_sub(LINE).max(top)), (width, LINE.min(height)), ink);
    fill(page, (left, top), (LINE.min(width), height), ink);
    fill(page, (right.saturating_sub(LINE).max(left), top), (LINE.min(width), height), ink);
}
