//! Text and rectangles on a picture, with ab_glyph and egui's fonts.
#![allow(dead_code)] // Each example uses its part.

use ab_glyph::{Font, FontRef, GlyphId, PxScale, ScaleFont, point};
use image::{GenericImage, Rgb, RgbImage};

use super::common::{Error, Result};

/// The examples' dark sheets: the ground, rims of pictures, headings, text, and numbers that are good news.
pub const PAPER: Rgb<u8> = Rgb([18, 20, 24]);
pub const FRAME: Rgb<u8> = Rgb([52, 57, 66]);
pub const TITLE: Rgb<u8> = Rgb([240, 240, 236]);
pub const TEXT: Rgb<u8> = Rgb([160, 167, 178]);
pub const GOOD: Rgb<u8> = Rgb([126, 200, 148]);

/// A font at a size in pixels.
pub struct Type {
    font: FontRef<'static>,
    scale: PxScale,
}

impl Type {
    /// For headings.
    pub fn light(pixels: f32) -> Result<Self> {
        Self::new(epaint_default_fonts::UBUNTU_LIGHT, pixels)
    }

    /// For numbers and what explains them, all of one width.
    pub fn mono(pixels: f32) -> Result<Self> {
        Self::new(epaint_default_fonts::HACK_REGULAR, pixels)
    }

    fn new(bytes: &'static [u8], pixels: f32) -> Result<Self> {
        let font = FontRef::try_from_slice(bytes).map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Self { font, scale: PxScale::from(pixels) })
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
    pub fn fit(&self, text: &str, width: f32) -> String {
        let mut text = text.to_string();
        while self.width(&text) > width && text.pop().is_some() {}
        text
    }

    /// A text in lines of at most a width, broken at spaces and, where there is none, between letters.
    pub fn wrap(&self, text: &str, width: f32) -> Vec<String> {
        let mut lines = vec![String::new()];
        for c in text.chars() {
            let Some(line) = lines.last_mut() else { break };
            line.push(c);
            if self.width(line) > width && line.chars().count() > 1 {
                let keep = line.trim_end().rfind(' ').map_or(line.len() - c.len_utf8(), |space| space + 1);
                let rest = line.split_off(keep);
                lines.push(rest);
            }
        }
        lines
    }

    /// Draws a text whose baseline begins at (x, y).
    pub fn draw(&self, sheet: &mut RgbImage, (x, y): (f32, f32), ink: Rgb<u8>, text: &str) {
        for (id, offset) in self.lay_out(text).0 {
            let glyph = id.with_scale_and_position(self.scale, point(x + offset, y));
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

    /// The same with its middle at (x, y).
    pub fn draw_centred(&self, sheet: &mut RgbImage, (x, y): (f32, f32), ink: Rgb<u8>, text: &str) {
        // Digits stand on the baseline and are seven tenths of the size high.
        self.draw(sheet, ((x - self.width(text) / 2.0).round(), (y + 0.35 * self.scale.y).round()), ink, text);
    }
}

/// `part` of `b` and the rest of `a`.
pub fn mix(a: Rgb<u8>, b: Rgb<u8>, part: f32) -> Rgb<u8> {
    Rgb([0, 1, 2].map(|c| (f32::from(a[c]) * (1.0 - part) + f32::from(b[c]) * part).round() as u8))
}

/// Fills a rectangle; what lies outside the picture is left out.
pub fn fill(sheet: &mut RgbImage, (x, y): (u32, u32), (width, height): (u32, u32), ink: Rgb<u8>) {
    for (column, row) in (y..y + height).flat_map(|row| (x..x + width).map(move |column| (column, row))) {
        if let Some(pixel) = sheet.get_pixel_mut_checked(column, row) {
            *pixel = ink;
        }
    }
}

/// Copies a picture into the middle of a column of `width` from (left, top) on, with a frame round it.
pub fn insert(
    sheet: &mut RgbImage,
    (left, top): (u32, u32),
    width: u32,
    (picture, frame): (&RgbImage, Rgb<u8>),
) -> Result<()> {
    let (w, h) = picture.dimensions();
    let left = left + width.saturating_sub(w) / 2;
    fill(sheet, (left - 1, top - 1), (w + 2, h + 2), frame);
    sheet.copy_from(picture, left, top).map_err(|error| Error::Failed(error.to_string()))
}
