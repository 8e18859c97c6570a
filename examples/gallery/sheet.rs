//! The contact sheet: tiles in four columns, each with its captions.

use image::{GenericImage, Rgb, RgbImage};
use wgconv::ndarray::Array2;

use super::common::{Error, Result};
use super::text::{FRAME, GOOD, PAPER, TEXT, TITLE, Type, fill, mix};

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

/// Draws the sheet. All pictures have the first one's size.
pub fn compose(subtitle: &str, cells: &[Cell]) -> Result<RgbImage> {
    let (heading, title, small) = (Type::light(30.0)?, Type::light(18.5)?, Type::mono(12.0)?);
    let (width, height) = cells.first().map_or((1, 1), |cell| cell.picture.dimensions());
    let rows = (cells.len() as u32).div_ceil(COLUMNS);
    let mut sheet =
        RgbImage::from_pixel(2 * MARGIN + COLUMNS * (width + GAP) - GAP, HEADER + rows * (height + CAPTION), PAPER);
    heading.draw(&mut sheet, (MARGIN as f32, 44.0), TITLE, "The convolution family");
    small.draw(&mut sheet, (MARGIN as f32, 66.0), TEXT, subtitle);
    for (cell, i) in cells.iter().zip(0..) {
        let (x, y) = (MARGIN + i % COLUMNS * (width + GAP), HEADER + i / COLUMNS * (height + CAPTION));
        fill(&mut sheet, (x - 1, y - 1), (width + 2, height + 2), FRAME);
        sheet.copy_from(&cell.picture, x, y).map_err(|error| Error::Failed(error.to_string()))?;
        if let Some(taps) = &cell.taps {
            draw_taps(&mut sheet, (x + width, y + height), taps);
        }
        let (left, bottom, room) = (x as f32, (y + height) as f32, width as f32);
        title.draw(&mut sheet, (left, bottom + 23.0), TITLE, &title.fit(&cell.title, room));
        let lines = [(&cell.options[0], TEXT, 41.0), (&cell.options[1], TEXT, 57.0), (&cell.footer, GOOD, 74.0)];
        for (line, ink, below) in lines {
            small.draw(&mut sheet, (left, bottom + below), ink, &small.fit(line, room));
        }
    }
    Ok(sheet)
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
