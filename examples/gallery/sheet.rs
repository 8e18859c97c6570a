//! The contact sheet: tiles in four columns, each with its captions, drawn with ab_glyph and egui's fonts.

use ab_glyph::{Font, FontRef, GlyphId, PxScale, ScaleFont, point};
use image::{GenericImage, Rgb, RgbImage};
use wgconv::ndarray::Array2;

use super::common::{Error, Result};

/// One picture and what stands under it.
pub struct Cell {
    pub picture: RgbImage,
    pub title: String,
    pub options: [String; 2],
    /// The last line: `max |gpu - cpu| = ...`.
    pub footer: String,
    /// A kernel to draw in the picture's corner; NaN where it has no tap.
    pub taps: Option<Array2<f32>>,
}

const COLUMNS: u32 = 4;
const MARGIN: u32 = 28;
const GAP: u32 = 20;
const HEADER: u32 = 84;
/// Height of the captions and of the space below them.
const CAPTION: u32 = 104;

const PAPER: Rgb<u8> = Rgb([18, 20, 24]);
const FRAME: Rgb<u8> = Rgb([52, 57, 66]);
const TITLE: Rgb<u8> = Rgb([240, 240, 236]);
const TEXT: Rgb<u8> = Rgb([160, 167, 178]);
const NUMBER: Rgb<u8> = Rgb([126, 200, 148]);

/// A font at a size in pixels.
pub struct Type<'a> {
    font: FontRef<'a>,
    scale: PxScale,
}

impl Type<'_> {
    /// For the sheet's name.
    pub fn heading() -> Result<Type<'static>> {
        Self::new(epaint_default_fonts::UBUNTU_LIGHT, 30.0)
    }

    /// For the tiles' names.
    pub fn title() -> Result<Type<'static>> {
        Self::new(epaint_default_fonts::UBUNTU_LIGHT, 18.5)
    }

    /// For options and numbers, all of one width.
    pub fn small() -> Result<Type<'static>> {
        Self::new(epaint_default_fonts::HACK_REGULAR, 12.0)
    }

    fn new(bytes: &'static [u8], pixels: f32) -> Result<Type<'static>> {
        let font = FontRef::try_from_slice(bytes).map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Type { font, scale: PxScale::from(pixels) })
    }

    /// Each glyph of a text and where it begins, and where the text ends.
    fn lay_out(&self, text: &str) -> (Vec<(GlyphId, f32)>, f32) {
        let font = self.font.as_scaled(self.scale);
        let (mut glyphs, mut x, mut last) = (vec![], 0.0, None);
        for id in text.chars().map(|c| font.glyph_id(c)) {
            x += last.map_or(0.0, |last| font.kern(last, id));
            glyphs.push((id, x));
            x += font.h_advance(id);
            last = Some(id);
        }
        (glyphs, x)
    }

    /// Width of a text in pixels.
    pub fn width(&self, text: &str) -> f32 {
        self.lay_out(text).1
    }

    /// As much of a text as a width takes.
    fn fit(&self, text: &str, width: u32) -> String {
        let mut text = text.to_string();
        while self.width(&text) > width as f32 && text.pop().is_some() {}
        text
    }

    /// Draws a text whose baseline begins at (x, y).
    fn draw(&self, sheet: &mut RgbImage, (x, y): (u32, u32), ink: Rgb<u8>, text: &str) {
        for (id, offset) in self.lay_out(text).0 {
            let glyph = id.with_scale_and_position(self.scale, point(x as f32 + offset, y as f32));
            let Some(outline) = self.font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|column, row, coverage| {
                let at = (corner.x as i64 + i64::from(column), corner.y as i64 + i64::from(row));
                let (Ok(column), Ok(row)) = (u32::try_from(at.0), u32::try_from(at.1)) else { return };
                if let Some(pixel) = sheet.get_pixel_mut_checked(column, row) {
                    // Thin strokes on a dark ground look thinner than they are.
                    *pixel = mix(*pixel, ink, coverage.clamp(0.0, 1.0).powf(0.8));
                }
            });
        }
    }
}

fn mix(a: Rgb<u8>, b: Rgb<u8>, part: f32) -> Rgb<u8> {
    Rgb([0, 1, 2].map(|c| (f32::from(a[c]) * (1.0 - part) + f32::from(b[c]) * part).round() as u8))
}

/// Draws the sheet. All pictures have the first one's size.
pub fn compose(subtitle: &str, cells: &[Cell]) -> Result<RgbImage> {
    let (heading, title, small) = (Type::heading()?, Type::title()?, Type::small()?);
    let (width, height) = cells.first().map_or((1, 1), |cell| cell.picture.dimensions());
    let rows = (cells.len() as u32).div_ceil(COLUMNS);
    let mut sheet =
        RgbImage::from_pixel(2 * MARGIN + COLUMNS * (width + GAP) - GAP, HEADER + rows * (height + CAPTION), PAPER);
    heading.draw(&mut sheet, (MARGIN, 44), TITLE, "The convolution family");
    small.draw(&mut sheet, (MARGIN, 66), TEXT, subtitle);
    for (cell, i) in cells.iter().zip(0..) {
        let (x, y) = (MARGIN + i % COLUMNS * (width + GAP), HEADER + i / COLUMNS * (height + CAPTION));
        fill(&mut sheet, (x - 1, y - 1), (width + 2, height + 2), FRAME);
        sheet.copy_from(&cell.picture, x, y).map_err(|error| Error::Failed(error.to_string()))?;
        if let Some(taps) = &cell.taps {
            draw_taps(&mut sheet, (x + width, y + height), taps);
        }
        title.draw(&mut sheet, (x, y + height + 23), TITLE, &title.fit(&cell.title, width));
        let lines = [(&cell.options[0], TEXT, 41), (&cell.options[1], TEXT, 57), (&cell.footer, NUMBER, 74)];
        for (line, ink, below) in lines {
            small.draw(&mut sheet, (x, y + height + below), ink, &small.fit(line, width));
        }
    }
    Ok(sheet)
}

fn fill(sheet: &mut RgbImage, (x, y): (u32, u32), (width, height): (u32, u32), ink: Rgb<u8>) {
    for (column, row) in (y..y + height).flat_map(|row| (x..x + width).map(move |column| (column, row))) {
        if let Some(pixel) = sheet.get_pixel_mut_checked(column, row) {
            *pixel = ink;
        }
    }
}

/// A kernel as a small chequer whose lower right corner lies just inside (right, bottom): orange adds, blue takes away.
fn draw_taps(sheet: &mut RgbImage, (right, bottom): (u32, u32), taps: &Array2<f32>) {
    let extent = taps.nrows() as u32;
    let cell = (44 / extent).max(1);
    let side = extent * cell + 1;
    let (Some(x), Some(y)) = (right.checked_sub(side + 8), bottom.checked_sub(side + 8)) else { return };
    fill(sheet, (x - 2, y - 2), (side + 4, side + 4), Rgb([235, 235, 230]));
    fill(sheet, (x - 1, y - 1), (side + 2, side + 2), PAPER);
    let most = taps.iter().fold(0.0, |most, w| f32::max(most, w.abs()));
    for ((i, j), &w) in taps.indexed_iter() {
        let ink = match w / most {
            part if part.is_nan() => Rgb([40, 43, 50]),
            part if part < 0.0 => mix(Rgb([74, 78, 86]), Rgb([84, 160, 255]), -part),
            part => mix(Rgb([74, 78, 86]), Rgb([255, 190, 92]), part),
        };
        let gap = u32::from(cell > 3);
        fill(sheet, (x + j as u32 * cell + gap, y + i as u32 * cell + gap), (cell - gap, cell - gap), ink);
    }
}
