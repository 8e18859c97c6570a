//! From the map of probabilities to boxes around lines of text.

use wgconv::ndarray::ArrayView2;

/// A pixel over this belongs to text.
pub const THRESHOLD: f32 = 0.3;
/// A region whose mean probability is below this is none.
const SURE: f32 = 0.5;
/// Regions with a shorter edge are none.
const LEAST_EDGE: usize = 3;
/// The network is trained to mark the core of a line. Its box grows on all sides by area * this / perimeter (Liao et al. 2020).
const GROW: f64 = 1.6;

/// A box with edges along the axes, from (left, top) to just before (right, bottom), in pixels of the map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
    /// The mean of the probabilities.
    pub score: f32,
}

/// The connected regions over the threshold, from top to bottom. Neighbours may touch at a corner.
pub fn regions(map: ArrayView2<'_, f32>) -> Vec<Region> {
    let (height, width) = map.dim();
    let mut seen = vec![false; height * width];
    let mut found = Vec::new();
    for start in 0..height * width {
        if seen[start] || !over(map[[start / width, start % width]]) {
            continue;
        }
        seen[start] = true;
        let (mut stack, mut region, mut sum, mut count) = (vec![start], Extent::default(), 0.0f64, 0usize);
        while let Some(at) = stack.pop() {
            let (row, column) = (at / width, at % width);
            region.add(row, column);
            sum += f64::from(map[[row, column]]);
            count += 1;
            for row in row.saturating_sub(1)..(row + 2).min(height) {
                for column in column.saturating_sub(1)..(column + 2).min(width) {
                    let next = row * width + column;
                    if !seen[next] && over(map[[row, column]]) {
                        seen[next] = true;
                        stack.push(next);
                    }
                }
            }
        }
        found.extend(region.grown((height, width), (sum / count as f64) as f32));
    }
    found.sort_by(|a, b| (a.top, a.left).partial_cmp(&(b.top, b.left)).unwrap_or(std::cmp::Ordering::Equal));
    found
}

fn over(probability: f32) -> bool {
    probability > THRESHOLD
}

/// First and last rows and columns.
struct Extent {
    rows: (usize, usize),
    columns: (usize, usize),
}

impl Default for Extent {
    fn default() -> Self {
        Self { rows: (usize::MAX, 0), columns: (usize::MAX, 0) }
    }
}

impl Extent {
    fn add(&mut self, row: usize, column: usize) {
        self.rows = (self.rows.0.min(row), self.rows.1.max(row));
        self.columns = (self.columns.0.min(column), self.columns.1.max(column));
    }

    /// The region, unless it is too small or too unsure.
    fn grown(&self, (height, width): (usize, usize), score: f32) -> Option<Region> {
        let edges = [self.columns.1 - self.columns.0 + 1, self.rows.1 - self.rows.0 + 1];
        if edges.into_iter().min() < Some(LEAST_EDGE) || score < SURE {
            return None;
        }
        let [across, down] = edges.map(|edge| edge as f64);
        let grow = across * down * GROW / (2.0 * (across + down));
        Some(Region {
            left: (self.columns.0 as f64 - grow).max(0.0),
            top: (self.rows.0 as f64 - grow).max(0.0),
            right: (self.columns.1 as f64 + 1.0 + grow).min(width as f64),
            bottom: (self.rows.1 as f64 + 1.0 + grow).min(height as f64),
            score,
        })
    }
}
