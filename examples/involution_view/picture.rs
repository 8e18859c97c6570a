//! The photo, what each group makes of it, and below the kernels at the chosen pixels.

use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use wgconv::ndarray::ArrayD;

use super::common::Result;
use super::model::{GROUPS, Kernel, Layer};
use super::shapes::{dot, frame, ring};
use super::text::{FRAME, GOOD, PAPER, TEXT, TITLE, Type, fill, insert, mix};
use super::view::{Cell, Panel, Photo, Point};

/// What there is to draw.
pub struct Sheet<'a> {
    pub photo: &'a Photo,
    pub layer: &'a Layer,
    pub points: &'a [Cell],
    pub subtitle: String,
    /// Of GPU and reference.
    pub compared: String,
}

const MARGIN: u32 = 28;
const GAP: u32 = 18;
const PANEL: u32 = 370;
/// A photo in portrait is drawn no higher.
const TALLEST: u32 = 480;
const HEADER: u32 = 84;
const CAPTION: u32 = 72;
/// Largest side of a kernel, and the room for the line under it.
const TILE: u32 = 176;
const UNDER: u32 = 34;

const MARKER: Rgb<u8> = Rgb([255, 72, 72]);
/// Weights of -1, 0 and 1 times the largest of a kernel.
pub const NEGATIVE: Rgb<u8> = Rgb([70, 150, 255]);
pub const ZERO: Rgb<u8> = Rgb([34, 37, 43]);
pub const POSITIVE: Rgb<u8> = Rgb([255, 196, 92]);

const TEXTS: [(&str, &str); 3] = [
    ("The photo", "the pixels whose kernels are below"),
    ("Group 1", "smooths along edges, widely on plain ground"),
    ("Group 2", "sharpens across edges"),
];

impl Sheet<'_> {
    /// Draws it all.
    pub fn draw(&self) -> Result<RgbImage> {
        let (heading, title, small) = (Type::light(30.0)?, Type::light(20.0)?, Type::mono(12.0)?);
        let photo = self.marked(&small);
        let height = photo.height();
        let width = 2 * MARGIN + 3 * PANEL + 2 * GAP;
        let inner = width - 2 * MARGIN;
        let count = (self.points.len() as u32).max(1);
        let side = ((inner + GAP) / count - GAP).min(TILE);
        let below = HEADER + height + CAPTION;
        let rows = 1 + GROUPS as u32;
        let mut sheet = RgbImage::from_pixel(width, below + rows * (side + UNDER) + 30 + MARGIN, PAPER);
        heading.draw(&mut sheet, (MARGIN as f32, 44.0), TITLE, "The kernels that an involution layer makes");
        small.draw(&mut sheet, (MARGIN as f32, 66.0), TEXT, &small.fit(&self.subtitle, inner as f32));
        let pictures = [photo, self.filtered(0, height), self.filtered(1, height)];
        for ((picture, (name, text)), i) in pictures.iter().zip(TEXTS).zip(0..) {
            let left = MARGIN + i * (PANEL + GAP);
            insert(&mut sheet, (left, HEADER), PANEL, (picture, FRAME))?;
            let (x, bottom) = (left as f32, (HEADER + height) as f32);
            title.draw(&mut sheet, (x, bottom + 25.0), TITLE, name);
            small.draw(&mut sheet, (x, bottom + 43.0), TEXT, text);
        }
        for (&point, i) in self.points.iter().zip(0..) {
            let left = MARGIN + i * (side + GAP);
            let Point { x, y } = self.photo.point(point);
            let taps = self.layer.kernel(0, point).0.nrows();
            self.draw_window(&mut sheet, (left, below), side, (point, taps));
            let label = |sheet: &mut RgbImage, row: u32, text: &str| {
                let baseline = (below + row * (side + UNDER) + side + 16) as f32;
                small.draw(sheet, (left as f32, baseline), TEXT, &small.fit(text, side as f32));
            };
            label(&mut sheet, 0, &format!("{}: pixel ({x}, {y})", i + 1));
            for (group, row) in (0..GROUPS).zip(1..) {
                let kernel = self.layer.kernel(group, point);
                draw_kernel(&mut sheet, (left, below + row * (side + UNDER)), side, &kernel);
                label(&mut sheet, row, &format!("group {row}: {}", kernel.range()));
            }
        }
        self.draw_legend(&mut sheet, (MARGIN, below + rows * (side + UNDER) + 14), &small);
        Ok(sheet)
    }

    /// The photo with numbers at the chosen pixels.
    fn marked(&self, face: &Type) -> RgbImage {
        let mut panel: Panel = self.photo.panel(PANEL, TALLEST);
        for (&(row, column), number) in self.points.iter().zip(1..) {
            let at = panel.place((row as f32, column as f32));
            dot(&mut panel.picture, at, 10.0, PAPER, 0.8);
            ring(&mut panel.picture, at, 10.0, 1.8, MARKER);
            face.draw_centred(&mut panel.picture, at, TITLE, &number.to_string());
        }
        panel.picture
    }

    /// What a group makes of the photo, as high as the photo is drawn.
    fn filtered(&self, group: usize, height: u32) -> RgbImage {
        let width = self.photo.panel(PANEL, TALLEST).picture.width();
        resize(&picture_of(&self.layer.colours(group)), width, height, FilterType::CatmullRom)
    }

    /// The pixels of the photo that a kernel covers.
    fn draw_window(&self, sheet: &mut RgbImage, (left, top): (u32, u32), side: u32, (point, taps): (Cell, usize)) {
        let window = self.photo.window(point, taps);
        draw_cells(sheet, (left, top), side, taps, |i| match window[i] {
            Some(rgb) => Rgb(rgb.map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8)),
            None => PAPER,
        });
        let (cell, middle) = (side / taps as u32, (taps / 2) as u32);
        let corner = (left + middle * cell, top + middle * cell);
        frame(sheet, corner, (cell, cell), MARKER);
    }

    fn draw_legend(&self, sheet: &mut RgbImage, (left, baseline): (u32, u32), face: &Type) {
        const LENGTH: u32 = 180;
        let mut x = left;
        let say = |sheet: &mut RgbImage, x: u32, text: &str, ink| {
            face.draw(sheet, (x as f32, baseline as f32), ink, text);
            x + face.width(text).ceil() as u32
        };
        x = say(sheet, x, "each kernel's own scale: -max", TEXT) + 10;
        for i in 0..LENGTH {
            fill(sheet, (x + i, baseline - 11), (1, 14), ink(2.0 * f64::from(i) / f64::from(LENGTH - 1) - 1.0));
        }
        x = say(sheet, x + LENGTH + 10, "max", TEXT) + 34;
        x = say(sheet, x, "red frame: the pixel itself", TEXT) + 34;
        say(sheet, x, &self.compared, GOOD);
    }
}

/// Three channels of values in 0..1 as red, green and blue.
pub fn picture_of(y: &ArrayD<f64>) -> RgbImage {
    RgbImage::from_fn(y.shape()[3] as u32, y.shape()[2] as u32, |j, i| {
        let value = |c| y[[0, c, i as usize, j as usize]];
        Rgb([0, 1, 2].map(|c| (value(c).clamp(0.0, 1.0) * 255.0).round() as u8))
    })
}

/// The colour of a weight from -1 to 1: the brighter the larger, from dark at 0.
fn ink(part: f64) -> Rgb<u8> {
    let strength = (part.abs().min(1.0) as f32).powf(0.6);
    mix(ZERO, if part < 0.0 { NEGATIVE } else { POSITIVE }, strength)
}

/// A kernel, each weight a square whose colour is its share of the largest.
pub fn draw_kernel(sheet: &mut RgbImage, corner: (u32, u32), side: u32, kernel: &Kernel) {
    let (taps, most) = (kernel.0.nrows(), kernel.most());
    draw_cells(sheet, corner, side, taps, |i| {
        let weight = kernel.0[[i / taps, i % taps]];
        ink(if most > 0.0 { weight / most } else { 0.0 })
    });
}

fn draw_cells(
    sheet: &mut RgbImage,
    (left, top): (u32, u32),
    side: u32,
    taps: usize,
    colour: impl Fn(usize) -> Rgb<u8>,
) {
    let cell = (side / taps as u32).max(1);
    let gap = u32::from(cell >= 8);
    let whole = cell * taps as u32 + 1;
    fill(sheet, (left - 1, top - 1), (whole + 1, whole + 1), FRAME);
    for i in 0..taps * taps {
        let (x, y) = (left + (i % taps) as u32 * cell, top + (i / taps) as u32 * cell);
        fill(sheet, (x, y), (cell - gap, cell - gap), colour(i));
    }
}
