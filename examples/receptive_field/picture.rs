//! The gridding map as a picture.

use image::{Rgb, RgbImage};
use wgconv::ndarray::ArrayD;

use super::common::Result;
use super::text::{FRAME, GOOD, PAPER, TEXT, TITLE, Type, fill, mix};

/// What stands above the map.
pub struct Captions {
    pub title: String,
    /// Lines, and whether each is good news.
    pub verdicts: Vec<(String, bool)>,
    /// What explains them.
    pub notes: Vec<String>,
}

const MARGIN: u32 = 36;
/// The captions need so much.
const LEAST_WIDTH: u32 = 640;
/// Extent of a map whose pixels can be drawn larger than one, and of its largest pixel.
const MAP: u32 = 680;
const LARGEST_CELL: u32 = 56;
/// For the numbers left of the map and below it.
const LEFT: u32 = 44;
const BELOW: u32 = 50;
const LEGEND: u32 = 62;
const LINE: u32 = 19;

const BAD: Rgb<u8> = Rgb([240, 128, 112]);
const HOLE: Rgb<u8> = Rgb([48, 24, 28]);
const CROSS: Rgb<u8> = Rgb([190, 66, 62]);
/// From seldom to often.
const RAMP: [[u8; 3]; 5] = [[52, 74, 140], [38, 122, 150], [48, 168, 132], [138, 206, 84], [250, 228, 70]];

/// Draws the map of counts, rows by columns, under its captions.
pub fn draw(counts: &ArrayD<u128>, captions: &Captions) -> Result<RgbImage> {
    let (heading, line, small) = (Type::light(30.0)?, Type::mono(14.0)?, Type::mono(12.0)?);
    let extent = counts.shape()[0] as u32;
    let cell = (MAP / extent).clamp(1, LARGEST_CELL);
    let side = extent * cell;
    let inner = (LEFT + side).max(LEAST_WIDTH);
    let mut lines = vec![];
    for (text, good) in &captions.verdicts {
        lines.extend(
            line.wrap(text, inner as f32).into_iter().map(|part| (part, if *good { GOOD } else { BAD }, &line)),
        );
    }
    for text in &captions.notes {
        lines.extend(small.wrap(text, inner as f32).into_iter().map(|part| (part, TEXT, &small)));
    }
    let titles = heading.wrap(&captions.title, inner as f32);
    let head = MARGIN + 36 * titles.len() as u32 + LINE * lines.len() as u32 + 16;
    let mut sheet = RgbImage::from_pixel(inner + 2 * MARGIN, head + side + BELOW + LEGEND, PAPER);
    let mut y = MARGIN as f32 - 12.0;
    for text in &titles {
        y += 36.0;
        heading.draw(&mut sheet, (MARGIN as f32, y), TITLE, text);
    }
    y += 8.0;
    for (text, ink, face) in &lines {
        y += LINE as f32;
        face.draw(&mut sheet, (MARGIN as f32, y), *ink, text);
    }
    let corner = (MARGIN + LEFT + (inner - LEFT - side) / 2, head);
    draw_map(&mut sheet, corner, cell, counts)?;
    draw_axes(&mut sheet, corner, cell, extent, &small);
    draw_legend(&mut sheet, (MARGIN + LEFT, head + side + BELOW), counts, &small);
    Ok(sheet)
}

/// The colour of a count: logarithmic, since counts of deep stacks grow without bounds towards the middle.
fn colour(count: u128, most: u128) -> Rgb<u8> {
    let part = if most > 1 { (count as f64).ln() / (most as f64).ln() } else { 0.0 };
    ramp(part as f32)
}

/// The colour at a part of the way from the least count to the greatest.
fn ramp(part: f32) -> Rgb<u8> {
    let place = part * (RAMP.len() - 1) as f32;
    let below = (place as usize).min(RAMP.len() - 2);
    mix(Rgb(RAMP[below]), Rgb(RAMP[below + 1]), place - below as f32)
}

fn most(counts: &ArrayD<u128>) -> u128 {
    counts.iter().copied().max().unwrap_or(0)
}

fn draw_map(sheet: &mut RgbImage, (left, top): (u32, u32), cell: u32, counts: &ArrayD<u128>) -> Result<()> {
    let (most, gap) = (most(counts), u32::from(cell >= 6));
    let side = cell * counts.shape()[0] as u32;
    fill(sheet, (left - 1, top - 1), (side + 2 - gap, side + 2 - gap), FRAME);
    // As large as the longest number allows.
    let longest = Type::mono(10.0)?.width(&most.to_string()).max(6.0) / 10.0;
    let size = (0.42 * cell as f32).min((cell as f32 - 5.0) / longest).min(18.0);
    let face = if size >= 7.5 { Some(Type::mono(size)?) } else { None };
    for (index, &count) in counts.indexed_iter() {
        let (x, y) = (left + index[1] as u32 * cell, top + index[0] as u32 * cell);
        if count == 0 {
            draw_hole(sheet, (x, y), cell - gap);
            continue;
        }
        let ground = colour(count, most);
        fill(sheet, (x, y), (cell - gap, cell - gap), ground);
        if let Some(face) = &face {
            let [r, g, b] = ground.0.map(f32::from);
            let ink = if 0.3 * r + 0.59 * g + 0.11 * b > 125.0 { PAPER } else { TITLE };
            let middle = (cell - gap) as f32 / 2.0;
            face.draw_centred(sheet, (x as f32 + middle, y as f32 + middle), ink, &count.to_string());
        }
    }
    Ok(())
}

/// A pixel that is not seen: crossed out, where there is room for it.
fn draw_hole(sheet: &mut RgbImage, (x, y): (u32, u32), extent: u32) {
    if extent < 7 {
        return fill(sheet, (x, y), (extent, extent), mix(HOLE, CROSS, 0.6));
    }
    fill(sheet, (x, y), (extent, extent), HOLE);
    let inset = extent / 4;
    let thick = 1 + extent / 24;
    for i in inset..extent - inset {
        fill(sheet, (x + i, y + i), (thick, 1), CROSS);
        fill(sheet, (x + extent - i - thick, y + i), (thick, 1), CROSS);
    }
}

/// Numbers along the left and the lower side, counted from the pixel in the middle.
fn draw_axes(sheet: &mut RgbImage, (left, top): (u32, u32), cell: u32, extent: u32, face: &Type) {
    let steps = [1, 2, 5, 10, 20, 50, 100, 200];
    let step = steps.into_iter().find(|step| step * cell >= 34).unwrap_or(500);
    let (middle, side) = ((extent - 1) / 2, extent * cell);
    for i in (0..extent).filter(|i| i.abs_diff(middle) % step == 0) {
        let label = (i64::from(i) - i64::from(middle)).to_string();
        let along = i * cell + cell / 2;
        let (x, y) = ((left + along) as f32, (top + along) as f32);
        fill(sheet, (left - 6, top + along), (4, 1), TEXT);
        fill(sheet, (left + along, top + side + 2), (1, 4), TEXT);
        face.draw_centred(sheet, (left as f32 - 10.0 - face.width(&label) / 2.0, y), TEXT, &label);
        face.draw_centred(sheet, (x, (top + side + 15) as f32), TEXT, &label);
    }
    let caption = "pixels from the middle";
    face.draw_centred(sheet, ((left + side / 2) as f32, (top + side + 34) as f32), TEXT, caption);
}

fn draw_legend(sheet: &mut RgbImage, (left, top): (u32, u32), counts: &ArrayD<u128>, face: &Type) {
    const LENGTH: u32 = 200;
    const HEIGHT: u32 = 14;
    let most = most(counts);
    let (mut x, baseline) = (left, (top + 11) as f32);
    let say = |sheet: &mut RgbImage, x: u32, text: &str| {
        face.draw(sheet, (x as f32, baseline), TEXT, text);
        x + face.width(text).ceil() as u32
    };
    x = say(sheet, x, "seen once") + 10;
    if most > 1 {
        for i in 0..LENGTH {
            fill(sheet, (x + i, top), (1, HEIGHT), ramp(i as f32 / (LENGTH - 1) as f32));
        }
        x = say(sheet, x + LENGTH + 10, &format!("{most} times"));
    } else {
        fill(sheet, (x, top), (HEIGHT, HEIGHT), colour(1, most));
        x += HEIGHT;
    }
    if counts.iter().any(|&count| count == 0) {
        draw_hole(sheet, (x + 34, top), HEIGHT);
        say(sheet, x + 34 + HEIGHT + 10, "never");
    }
}
