//! The three versions side by side: their taps over the photo, and one window magnified.

use image::{Rgb, RgbImage};

use super::common::Result;
use super::model::{Field, Geometry, Sample, samples};
use super::shapes::{dot, frame, line, ring};
use super::text::{FRAME, GOOD, PAPER, TEXT, TITLE, Type, fill, insert, mix};
use super::view::{Cell, Panel, Photo};

/// One version of the layer.
pub struct View {
    pub title: &'static str,
    pub field: Field,
    /// `max |gpu - cpu|` of the layer's output, where there is a GPU.
    pub difference: Option<f64>,
}

impl View {
    /// The taps of all points.
    fn taps(&self, geometry: Geometry, points: &[Cell]) -> Vec<Sample> {
        points.iter().flat_map(|&point| samples(geometry, &self.field, point)).collect()
    }

    /// What the taps do, in numbers.
    fn numbers(&self, geometry: Geometry, points: &[Cell]) -> String {
        let taps = self.taps(geometry, points);
        let mean = |value: fn(&Sample) -> f32| taps.iter().map(value).sum::<f32>() / taps.len().max(1) as f32;
        let moved = mean(|tap| (tap.at.0 - tap.regular.0).hypot(tap.at.1 - tap.regular.1));
        let mask = match self.field.mask {
            Some(_) => format!("mask {:.2}", mean(|tap| tap.mask)),
            None => "no mask".to_string(),
        };
        format!("mean shift {moved:.1}, {mask}")
    }

    fn compared(&self) -> String {
        match self.difference {
            Some(difference) => format!("max |gpu - cpu| = {difference:.1e}"),
            None => "CPU reference".to_string(),
        }
    }

    /// The line on stdout.
    pub fn describe(&self, geometry: Geometry, points: &[Cell]) -> String {
        format!("{:<14} {:<32} {}", self.title, self.numbers(geometry, points), self.compared())
    }

    fn explanation(&self) -> &'static str {
        match self.title {
            "Regular" => "every tap at its place in the grid",
            "Deformable v1" => "offsets: taps slide to the nearest edge",
            _ => "mask: a dot shrinks across an edge",
        }
    }
}

/// What there is to draw.
pub struct Sheet<'a> {
    pub photo: &'a Photo,
    pub geometry: Geometry,
    pub points: &'a [Cell],
    pub subtitle: String,
}

const MARGIN: u32 = 28;
const GAP: u32 = 18;
const PANEL: u32 = 370;
/// A photo in portrait is drawn no higher.
const TALLEST: u32 = 480;
const CLOSE_UP: u32 = 300;
const HEADER: u32 = 84;
const CAPTION: u32 = 92;

/// A tap where it samples, where it would be, and the output's own place.
pub const TAP: Rgb<u8> = Rgb([255, 214, 64]);
const GRID: Rgb<u8> = Rgb([250, 250, 246]);
const MIDDLE: Rgb<u8> = Rgb([255, 72, 72]);

impl Sheet<'_> {
    /// Draws all versions.
    pub fn draw(&self, views: &[View]) -> Result<RgbImage> {
        let (heading, title, small) = (Type::light(30.0)?, Type::light(20.0)?, Type::mono(12.0)?);
        let height = self.photo.panel(PANEL, TALLEST).picture.height();
        let width = 2 * MARGIN + views.len() as u32 * (PANEL + GAP) - GAP;
        let below = HEADER + height + CAPTION;
        let mut sheet = RgbImage::from_pixel(width, below + CLOSE_UP + 40 + MARGIN, PAPER);
        let inner = (width - 2 * MARGIN) as f32;
        heading.draw(&mut sheet, (MARGIN as f32, 44.0), TITLE, "Where a deformable convolution samples");
        small.draw(&mut sheet, (MARGIN as f32, 66.0), TEXT, &small.fit(&self.subtitle, inner));
        for (view, i) in views.iter().zip(0..) {
            let left = MARGIN + i * (PANEL + GAP);
            let whole = self.panel(view);
            insert(&mut sheet, (left, HEADER), PANEL, (&whole, FRAME))?;
            let (x, bottom) = (left as f32, (HEADER + height) as f32);
            title.draw(&mut sheet, (x, bottom + 25.0), TITLE, view.title);
            let numbers = view.numbers(self.geometry, self.points);
            let lines = [(view.explanation(), TEXT), (&numbers, TEXT), (&view.compared(), GOOD)];
            for ((text, ink), row) in lines.into_iter().zip(0u8..) {
                let baseline = bottom + 43.0 + 16.0 * f32::from(row);
                small.draw(&mut sheet, (x, baseline), ink, &small.fit(text, PANEL as f32));
            }
            insert(&mut sheet, (left, below), PANEL, (&self.close_up(view), FRAME))?;
        }
        self.draw_legend(&mut sheet, (MARGIN, below + CLOSE_UP + 26), &small);
        Ok(sheet)
    }

    /// The whole photo with the taps of every point.
    pub fn panel(&self, view: &View) -> RgbImage {
        let mut panel = self.photo.panel(PANEL, TALLEST);
        dim(&mut panel.picture, 0.12);
        let size = (0.42 * panel.scale * self.geometry.dilation as f32).clamp(1.6, 3.4);
        for (&point, i) in self.points.iter().zip(0..) {
            self.draw_taps(&mut panel, view, point, size);
            if i == 0 {
                self.draw_window(&mut panel, point);
            }
        }
        panel.picture
    }

    /// Marks the part that [`Self::close_up`] shows.
    fn draw_window(&self, panel: &mut Panel, point: Cell) {
        let part = self.photo.close_up(point, self.shown(), (PANEL, CLOSE_UP));
        let [start, end] = [(0.0, 0.0), (part.picture.width() as f32, part.picture.height() as f32)].map(|corner| {
            let (y, x) = part.element(corner);
            let (x, y) = panel.place((y, x));
            (x.round().max(0.0) as u32, y.round().max(0.0) as u32)
        });
        let extents = (end.0.saturating_sub(start.0), end.1.saturating_sub(start.1));
        frame(&mut panel.picture, start, extents, mix(GRID, PAPER, 0.1));
    }

    /// Elements of a close-up's width: more than the window's, since taps move out of it.
    fn shown(&self) -> usize {
        self.geometry.reach() * 7 / 4 + 4
    }

    /// The first point's taps, magnified.
    fn close_up(&self, view: &View) -> RgbImage {
        let first = self.points.first().copied().unwrap_or_default();
        let mut panel = self.photo.close_up(first, self.shown(), (PANEL, CLOSE_UP));
        dim(&mut panel.picture, 0.12);
        let size = (0.2 * panel.scale * self.geometry.dilation as f32).clamp(2.0, 7.0);
        self.draw_taps(&mut panel, view, first, size);
        panel.picture
    }

    /// The taps of an output: a line from the place in the grid to the sample, and there a dot whose area is the mask's share.
    fn draw_taps(&self, panel: &mut Panel, view: &View, point: Cell, size: f32) {
        let taps = samples(self.geometry, &view.field, point);
        let moved = |tap: &Sample| tap.at != tap.regular;
        for tap in taps.iter().filter(|tap| moved(tap)) {
            let (from, to) = (panel.place(tap.regular), panel.place(tap.at));
            line(&mut panel.picture, from, to, 0.35 * size, GRID, 0.55);
            dot(&mut panel.picture, from, 0.3 * size, GRID, 0.75);
        }
        for tap in &taps {
            let (at, radius) = (panel.place(tap.at), size * tap.mask.clamp(0.0, 1.0).sqrt());
            dot(&mut panel.picture, at, radius + 0.9, PAPER, 0.75);
            dot(&mut panel.picture, at, radius, TAP, 1.0);
        }
        let middle = panel.place((point.0 as f32, point.1 as f32));
        ring(&mut panel.picture, middle, 1.5 * size, 0.5 * size + 1.4, PAPER);
        ring(&mut panel.picture, middle, 1.5 * size, 0.5 * size, MIDDLE);
    }

    fn draw_legend(&self, sheet: &mut RgbImage, (left, baseline): (u32, u32), face: &Type) {
        let (mut x, y) = (left as f32, baseline as f32);
        let middle = y - 4.0;
        let say = |sheet: &mut RgbImage, x: f32, text: &str| {
            face.draw(sheet, (x, y), TEXT, text);
            x + face.width(text) + 34.0
        };
        ring(sheet, (x + 7.0, middle), 5.0, 2.0, MIDDLE);
        x = say(sheet, x + 20.0, "the output's place");
        dot(sheet, (x + 6.0, middle), 5.0, TAP, 1.0);
        x = say(sheet, x + 18.0, "a sample");
        for (mask, radius) in [(0.5, 5.0 * 0.5f32.sqrt()), (0.1, 5.0 * 0.1f32.sqrt())] {
            dot(sheet, (x + 6.0, middle), radius, TAP, 1.0);
            x = say(sheet, x + 18.0, &format!("mask {mask}"));
        }
        dot(sheet, (x + 3.0, middle), 2.0, GRID, 0.75);
        line(sheet, (x + 3.0, middle), (x + 22.0, middle), 1.6, GRID, 0.55);
        dot(sheet, (x + 24.0, middle), 4.0, TAP, 1.0);
        x = say(sheet, x + 36.0, "moved by its offset");
        fill(sheet, (x as u32, baseline - 9), (15, 10), GRID);
        fill(sheet, (x as u32 + 1, baseline - 8), (13, 8), PAPER);
        say(sheet, x + 22.0, "magnified below");
    }
}

/// Takes some of the light away, so that dots stand out.
fn dim(picture: &mut RgbImage, part: f32) {
    for pixel in picture.pixels_mut() {
        *pixel = mix(*pixel, PAPER, part);
    }
}
