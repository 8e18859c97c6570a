//! A photo as the views take it: the small one that the operators see, and panels of the large one to draw on.
#![allow(dead_code)] // Each example uses its part.

use std::str::FromStr;

use image::imageops::{FilterType, crop_imm, resize};
use image::{DynamicImage, RgbImage};
use wgconv::ndarray::{Array4, ArrayD};

use super::common::{Error, Result};
use super::shapes::Place;

/// A place on the picture as the user gives it: its own pixels, from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub x: u32,
    pub y: u32,
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |part: &str| part.trim().parse().map_err(|_| "expected x,y in pixels, such as 170,110".to_string());
        let (x, y) = text.split_once(',').unwrap_or((text, ""));
        Ok(Self { x: number(x)?, y: number(y)? })
    }
}

/// Row and column of an element.
pub type Cell = (usize, usize);

/// A photo in two sizes.
pub struct Photo {
    picture: RgbImage,
    /// What operators see: `[1, 3, height, width]`, values in 0..1.
    pub rgb: ArrayD<f32>,
}

impl Photo {
    /// `longest` is the longer side of what operators see.
    pub fn new(picture: &DynamicImage, longest: usize) -> Result<Self> {
        let picture = picture.to_rgb8();
        let (width, height) = picture.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::Failed("the picture is empty".to_string()));
        }
        let scale = longest as f64 / f64::from(width.max(height));
        let [columns, rows] = [width, height].map(|extent| ((f64::from(extent) * scale).round() as u32).max(1));
        let small = resize(&picture, columns, rows, FilterType::Lanczos3);
        let value = |(_, c, y, x): (usize, usize, usize, usize)| f32::from(small[(x as u32, y as u32)][c]) / 255.0;
        let rgb = Array4::from_shape_fn((1, 3, rows as usize, columns as usize), value).into_dyn();
        Ok(Self { picture, rgb })
    }

    /// Height and width of what operators see.
    pub fn extents(&self) -> Cell {
        (self.rgb.shape()[2], self.rgb.shape()[3])
    }

    /// The element of what operators see in which a point of the picture lies.
    pub fn locate(&self, point: Point) -> Result<Cell> {
        let (width, height) = self.picture.dimensions();
        if point.x >= width || point.y >= height {
            let Point { x, y } = point;
            return Err(Error::Failed(format!("--point {x},{y}: outside the picture of {width} x {height} pixels")));
        }
        let (rows, columns) = self.extents();
        let scaled = |at: u32, extent: u32, cells: usize| {
            let cell = (f64::from(at) + 0.5) * cells as f64 / f64::from(extent);
            (cell as usize).min(cells - 1)
        };
        Ok((scaled(point.y, height, rows), scaled(point.x, width, columns)))
    }

    /// The middle of an element on the picture.
    pub fn point(&self, (row, column): Cell) -> Point {
        let (width, height) = self.picture.dimensions();
        let (rows, columns) = self.extents();
        let scaled =
            |cell: usize, extent: u32, cells: usize| ((cell as f64 + 0.5) * f64::from(extent) / cells as f64) as u32;
        Point { x: scaled(column, width, columns), y: scaled(row, height, rows) }
    }

    /// The whole photo, as large as a box takes.
    pub fn panel(&self, width: u32, height: u32) -> Panel {
        let (rows, columns) = self.extents();
        let scale = (width as f32 / columns as f32).min(height as f32 / rows as f32);
        let [x, y] = [columns, rows].map(|cells| ((cells as f32 * scale).round() as u32).max(1));
        Panel { picture: resize(&self.picture, x, y, FilterType::Lanczos3), scale, first: (0.0, 0.0) }
    }

    /// `cells` elements of the photo's width about one of its elements, magnified to a width and a height; moved where the photo ends,
    /// and less of it where it is smaller.
    pub fn close_up(&self, middle: Cell, cells: usize, (width, height): (u32, u32)) -> Panel {
        let (rows, columns) = self.extents();
        let wide = cells.clamp(1, columns) as f32;
        let tall = (wide * height as f32 / width as f32).clamp(1.0, rows as f32);
        let start = |middle: usize, part: f32, all: usize| {
            (middle as f32 + 0.5 - part / 2.0).clamp(0.0, (all as f32 - part).max(0.0))
        };
        let (left, top) = (start(middle.1, wide, columns), start(middle.0, tall, rows));
        let pixels = |cell: f32, extent: u32, cells: usize| (cell * extent as f32 / cells as f32).round() as u32;
        let (all_x, all_y) = self.picture.dimensions();
        let (x, y) = (pixels(left, all_x, columns).min(all_x - 1), pixels(top, all_y, rows).min(all_y - 1));
        let (w, h) = (pixels(wide, all_x, columns).max(1), pixels(tall, all_y, rows).max(1));
        let part = crop_imm(&self.picture, x, y, w.min(all_x - x), h.min(all_y - y)).to_image();
        let scale = (width as f32 / wide).min(height as f32 / tall);
        let [w, h] = [wide, tall].map(|cells| ((cells * scale).round() as u32).max(1));
        // Where the crop begins on a whole pixel of the picture.
        let first = (x as f32 * columns as f32 / all_x as f32, y as f32 * rows as f32 / all_y as f32);
        Panel { picture: resize(&part, w, h, FilterType::CatmullRom), scale, first }
    }

    /// `cells` by `cells` elements about one, each a square; `None` outside the photo.
    pub fn window(&self, (row, column): Cell, cells: usize) -> Vec<Option<[f32; 3]>> {
        let (rows, columns) = self.extents();
        let at = |i: usize| {
            let (y, x) = ((row + i / cells).wrapping_sub(cells / 2), (column + i % cells).wrapping_sub(cells / 2));
            (y < rows && x < columns).then(|| [0, 1, 2].map(|c| self.rgb[[0, c, y, x]]))
        };
        (0..cells * cells).map(at).collect()
    }
}

/// A picture of the photo, or of a part of it, to draw on.
pub struct Panel {
    pub picture: RgbImage,
    /// Pixels an element.
    pub scale: f32,
    /// The first element shown, along x and y.
    first: Place,
}

impl Panel {
    /// Where a position in elements, (y, x) with whole numbers in their middles, lies on the picture.
    pub fn place(&self, (y, x): (f32, f32)) -> Place {
        ((x + 0.5 - self.first.0) * self.scale, (y + 0.5 - self.first.1) * self.scale)
    }

    /// The position (y, x) in elements of a place on the picture.
    pub fn element(&self, (x, y): Place) -> (f32, f32) {
        (y / self.scale + self.first.1 - 0.5, x / self.scale + self.first.0 - 0.5)
    }
}

/// The places of the largest values of a plane, at least `apart` from each other and from the rim where there is room.
pub fn peaks(plane: &ArrayD<f32>, (rows, columns): Cell, apart: usize, count: usize) -> Vec<Cell> {
    let rim = |extent: usize| (apart / 2).min((extent - 1) / 2);
    let (rim_y, rim_x) = (rim(rows), rim(columns));
    let mut cells: Vec<Cell> =
        (rim_y..rows - rim_y).flat_map(|y| (rim_x..columns - rim_x).map(move |x| (y, x))).collect();
    // The sort is stable: of equals the first.
    cells.sort_by(|a, b| plane[[0, 0, b.0, b.1]].total_cmp(&plane[[0, 0, a.0, a.1]]));
    let mut chosen: Vec<Cell> = vec![];
    for (y, x) in cells {
        if chosen.len() == count {
            break;
        }
        let far = |&(v, u): &Cell| y.abs_diff(v).pow(2) + x.abs_diff(u).pow(2) >= apart * apart;
        if chosen.iter().all(far) {
            chosen.push((y, x));
        }
    }
    chosen
}
