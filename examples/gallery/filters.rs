//! The weights, offsets, masks and per-pixel kernels that the tiles apply.

use std::f32::consts::{PI, SQRT_2};

use wgconv::ndarray::{Array2, Array4, ArrayD, Ix4};

/// A weight `[C_out, C_in/G, Kh, Kw]` from a function of (output channel, input channel, row, column).
pub fn weight(shape: [usize; 4], value: impl Fn(usize, usize, usize, usize) -> f32) -> ArrayD<f32> {
    Array4::from_shape_fn(shape, |(o, c, i, j)| value(o, c, i, j)).into_dyn()
}

/// Row or column of an odd kernel, counted from its middle.
fn from_middle(i: usize, kernel: usize) -> f32 {
    i as f32 - (kernel / 2) as f32
}

/// Sobel's two factors: the smoothing one and the differentiating one.
pub const SOBEL: [[f32; 3]; 2] = [[0.25, 0.5, 0.25], [-0.5, 0.0, 0.5]];

/// The derivative of a Gaussian along the falling diagonal: dark at the top left, bright at the bottom right.
pub fn emboss() -> ArrayD<f32> {
    const K: usize = 5;
    weight([1, 1, K, K], |_, _, i, j| {
        let (y, x) = (from_middle(i, K), from_middle(j, K));
        0.8 * (x + y) / SQRT_2 * (-(x * x + y * y) / 2.0).exp()
    })
}

/// A bank of three ridge filters `[3, 1, 3, 3]`, turned by 0, 60 and 120 degrees: second derivatives whose sum is 0.
pub fn ridges() -> ArrayD<f32> {
    let across = |o: usize, y: f32, x: f32| {
        let (sin, cos) = (o as f32 * PI / 3.0).sin_cos();
        (x * cos + y * sin).powi(2)
    };
    // The mean of (x cos + y sin)^2 over the nine taps is 2/3 at any angle.
    weight([3, 1, 3, 3], |o, _, i, j| 0.9 * (2.0 / 3.0 - across(o, from_middle(i, 3), from_middle(j, 3))))
}

/// Turns every hue by `turn` of a circle about the grey axis and stretches its saturation.
pub fn hue_matrix(turn: f32, saturation: f32) -> ArrayD<f32> {
    let (sin, cos) = (turn * 2.0 * PI).sin_cos();
    weight([3, 3, 1, 1], |o, c, _, _| {
        // Rodrigues' formula for the axis (1, 1, 1) / sqrt(3); the part along the axis is the grey, which stays.
        let cross = match (3 + c - o) % 3 {
            1 => -sin / 3f32.sqrt(),
            2 => sin / 3f32.sqrt(),
            _ => 0.0,
        };
        let same = if o == c { 1.0 } else { 0.0 };
        1.0 / 3.0 + saturation * (cos * (same - 1.0 / 3.0) + cross)
    })
}

/// Two groups of a blur: the first makes its channels grey and smears them along one diagonal, the second keeps its colours and
/// smears them along the other. `[6, 3, K, K]`
pub fn crossed_smears(kernel: usize) -> ArrayD<f32> {
    weight([6, 3, kernel, kernel], |o, c, i, j| {
        let (group, channel) = (o / 3, o % 3);
        let on_line = if group == 0 { i == j } else { i + j + 1 == kernel };
        let mix = match group {
            0 => [0.299, 0.587, 0.114][c] * [1.08, 1.0, 0.86][channel],
            _ if channel == c => 1.0,
            _ => 0.0,
        };
        if on_line { mix / kernel as f32 } else { 0.0 }
    })
}

/// A normalised Gaussian.
pub fn gaussian(kernel: usize, sigma: f32) -> Array2<f32> {
    let row = |i| (-from_middle(i, kernel).powi(2) / (2.0 * sigma * sigma)).exp();
    let g = Array2::from_shape_fn((kernel, kernel), |(i, j)| row(i) * row(j));
    let total = g.sum();
    g / total
}

/// The same plane for each of three channels, `[3, 1, K, K]`.
pub fn depthwise(plane: &Array2<f32>) -> ArrayD<f32> {
    weight([3, 1, plane.nrows(), plane.ncols()], |_, _, i, j| plane[[i, j]])
}

/// What, added to a picture, sharpens it: `amount * (identity - gaussian)`.
pub fn unsharp(kernel: usize, sigma: f32, amount: f32) -> ArrayD<f32> {
    let mut detail = gaussian(kernel, sigma) * -amount;
    detail[[kernel / 2, kernel / 2]] += amount;
    depthwise(&detail)
}

/// Per-pixel kernels `[1, 1, K, K, H, W]` that average only what looks alike: a Gaussian of the distance times one of the
/// difference in luminance, normalised over the taps inside the picture.
pub fn bilateral(luminance: &ArrayD<f32>, kernel: usize, (sigma, tolerance): (f32, f32)) -> ArrayD<f32> {
    let shape = luminance.shape();
    let (height, width) = (shape[2], shape[3]);
    let near = gaussian(kernel, sigma);
    let mut kernels = ArrayD::zeros(vec![1, 1, kernel, kernel, height, width]);
    for y in 0..height {
        for x in 0..width {
            let tap = |i: usize, j: usize| {
                let (v, u) = ((y + i).wrapping_sub(kernel / 2), (x + j).wrapping_sub(kernel / 2));
                let inside = v < height && u < width;
                inside.then(|| (luminance[[0, 0, v, u]] - luminance[[0, 0, y, x]]) / tolerance)
            };
            let weights = Array2::from_shape_fn((kernel, kernel), |(i, j)| {
                tap(i, j).map_or(0.0, |difference| near[[i, j]] * (-difference * difference / 2.0).exp())
            });
            let total = weights.sum();
            for ((i, j), value) in weights.indexed_iter() {
                kernels[[0, 0, i, j, y, x]] = value / total;
            }
        }
    }
    kernels
}

/// Row and column from the middle of a picture, in units of half its size.
fn centred(y: usize, x: usize, size: usize) -> (f32, f32) {
    let at = |p: usize| (2 * p + 1) as f32 / size as f32 - 1.0;
    (at(y), at(x))
}

/// Offsets `[1, 2, H, W]` of a kernel of one tap that turn the middle by `turns` of a circle and leave the rim alone.
pub fn swirl(size: usize, turns: f32) -> ArrayD<f32> {
    field([1, 2, size, size], |axis, y, x| {
        let (v, u) = centred(y, x, size);
        let (sin, cos) = (turns * 2.0 * PI * (1.0 - v.hypot(u)).max(0.0).powi(2)).sin_cos();
        let turned = [v * cos + u * sin, u * cos - v * sin];
        (turned[axis] - [v, u][axis]) * size as f32 / 2.0
    })
}

/// Offsets `[1, 18, H, W]` that lay the nine taps of a 3x3 kernel along the ray to the middle, the last one `reach` of the way.
pub fn rays(size: usize, reach: f32) -> ArrayD<f32> {
    field([1, 18, size, size], |channel, y, x| {
        let (tap, axis) = (channel / 2, channel % 2);
        let (v, u) = centred(y, x, size);
        let grid = [tap / 3, tap % 3][axis] as f32 - 1.0;
        -[v, u][axis] * size as f32 / 2.0 * reach * tap as f32 / 8.0 - grid
    })
}

/// Masks `[1, 9, H, W]` of 1 in the middle that fade to 0 at the rim.
pub fn fade(size: usize) -> ArrayD<f32> {
    field([1, 9, size, size], |_, y, x| {
        let (v, u) = centred(y, x, size);
        let t = ((1.02 - v.hypot(u)) / 0.62).clamp(0.0, 1.0);
        t * t * (3.0 - 2.0 * t)
    })
}

fn field(shape: [usize; 4], value: impl Fn(usize, usize, usize) -> f32) -> ArrayD<f32> {
    Array4::from_shape_fn(shape, |(_, c, y, x)| value(c, y, x)).into_dyn()
}

/// A kernel `[C, C, K, K]` that sums each channel by itself with equal weights `value`.
pub fn equal(channels: usize, kernel: usize, value: f32) -> ArrayD<f32> {
    weight([channels, channels, kernel, kernel], |o, c, _, _| if o == c { value } else { 0.0 })
}

/// The weight of a depthwise transposed convolution that repeats each pixel `scale` times.
pub fn nearest(scale: usize) -> ArrayD<f32> {
    weight([3, 1, scale, scale], |_, _, _, _| 1.0)
}

/// The weight of one that stamps a round dot for each pixel.
pub fn dot(scale: usize) -> ArrayD<f32> {
    let at = |i: usize| (2 * i + 1) as f32 / scale as f32 - 1.0;
    weight([3, 1, scale, scale], |_, _, i, j| ((1.02 - at(i).hypot(at(j))) * scale as f32 / 2.0).clamp(0.0, 1.0))
}

/// [`nearest`] for bilinear interpolation, as fully convolutional networks begin with (Long et al. 2015): a tent of `2 * scale` taps.
pub fn bilinear(scale: usize) -> ArrayD<f32> {
    let tent = |i: usize| 1.0 - ((2 * i + 1) as f32 / (2 * scale) as f32 - 1.0).abs();
    weight([3, 1, 2 * scale, 2 * scale], |_, _, i, j| tent(i) * tent(j))
}

/// A poster's inks, dark to bright, for equally spaced luminances.
pub const INKS: [[f32; 3]; 5] =
    [[0.06, 0.08, 0.20], [0.35, 0.12, 0.38], [0.80, 0.25, 0.36], [0.96, 0.60, 0.32], [0.99, 0.93, 0.76]];

/// Weight `[5, 1, 1, 1]` and bias `[5]` that turn a luminance l into `-sharpness * (l - level)^2` up to what all five share.
pub fn nearness(sharpness: f32) -> (ArrayD<f32>, ArrayD<f32>) {
    let level = |o: usize| 0.12 + 0.17 * o as f32;
    let bias = (0..INKS.len()).map(|o| -sharpness * level(o) * level(o)).collect::<Vec<_>>();
    (
        weight([INKS.len(), 1, 1, 1], |o, _, _, _| 2.0 * sharpness * level(o)),
        ArrayD::from_shape_fn(vec![INKS.len()], |i| bias[i[0]]),
    )
}

/// The inks as a colour matrix `[3, 5, 1, 1]`.
pub fn inks() -> ArrayD<f32> {
    weight([3, INKS.len(), 1, 1], |o, c, _, _| INKS[c][o])
}

/// The sum of absolute weights that one output sees at most: the largest value an input of at most 1 can give.
pub fn gain(weight: &ArrayD<f32>) -> f64 {
    let Ok(weight) = weight.view().into_dimensionality::<Ix4>() else { return f64::INFINITY };
    let sums = weight.outer_iter().map(|filter| filter.iter().map(|w| f64::from(w.abs())).sum());
    sums.fold(0.0, f64::max)
}
