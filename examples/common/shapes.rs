//! Dots, rings, lines and frames with smooth rims.
#![allow(dead_code)] // Each example uses its part.

use image::{Rgb, RgbImage};

use super::text::mix;

/// Columns and rows, from the left and from the top.
pub type Place = (f32, f32);

/// Mixes `ink` into the pixels of a box by how far each middle is from a shape: wholly where `distance` is at most -0.5, not at all
/// from 0.5 on.
fn paint(sheet: &mut RgbImage, (low, high): (Place, Place), ink: (Rgb<u8>, f32), distance: impl Fn(f32, f32) -> f32) {
    // A NaN becomes 0, and what lies outside the picture is left out.
    let span = |low: f32, high: f32, extent: u32| {
        let clamp = |v: f32| v.clamp(0.0, extent as f32) as u32;
        clamp((low - 1.0).floor())..clamp((high + 2.0).ceil())
    };
    for row in span(low.1, high.1, sheet.height()) {
        for column in span(low.0, high.0, sheet.width()) {
            let part = (0.5 - distance(column as f32 + 0.5, row as f32 + 0.5)).clamp(0.0, 1.0) * ink.1;
            let pixel = sheet.get_pixel_mut(column, row);
            *pixel = mix(*pixel, ink.0, part);
        }
    }
}

/// A filled circle.
pub fn dot(sheet: &mut RgbImage, (x, y): Place, radius: f32, ink: Rgb<u8>, opacity: f32) {
    let corners = ((x - radius, y - radius), (x + radius, y + radius));
    paint(sheet, corners, (ink, opacity), |u, v| (u - x).hypot(v - y) - radius);
}

/// A circle's line, of `width`.
pub fn ring(sheet: &mut RgbImage, (x, y): Place, radius: f32, width: f32, ink: Rgb<u8>) {
    let reach = radius + width;
    let corners = ((x - reach, y - reach), (x + reach, y + reach));
    paint(sheet, corners, (ink, 1.0), |u, v| ((u - x).hypot(v - y) - radius).abs() - width / 2.0);
}

/// A line with round ends.
pub fn line(sheet: &mut RgbImage, from: Place, to: Place, width: f32, ink: Rgb<u8>, opacity: f32) {
    let (along, across) = (to.0 - from.0, to.1 - from.1);
    let square = (along * along + across * across).max(f32::MIN_POSITIVE);
    let low = (from.0.min(to.0) - width, from.1.min(to.1) - width);
    let high = (from.0.max(to.0) + width, from.1.max(to.1) + width);
    paint(sheet, (low, high), (ink, opacity), |u, v| {
        let part = (((u - from.0) * along + (v - from.1) * across) / square).clamp(0.0, 1.0);
        (u - from.0 - part * along).hypot(v - from.1 - part * across) - width / 2.0
    });
}

/// A rectangle's line of one pixel, just inside it.
pub fn frame(sheet: &mut RgbImage, (left, top): (u32, u32), (width, height): (u32, u32), ink: Rgb<u8>) {
    let sides = [((left, top), (width, 1)), ((left, top), (1, height))];
    let right = ((left + width.saturating_sub(1), top), (1, height));
    let bottom = ((left, top + height.saturating_sub(1)), (width, 1));
    for (corner, extents) in sides.into_iter().chain([right, bottom]) {
        super::text::fill(sheet, corner, extents, ink);
    }
}
