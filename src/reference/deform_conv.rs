//! Deformable convolution, version 1 (no mask) and 2 (mask): Dai et al. 2017, Zhu et al. 2019.

use ndarray::{Array4, ArrayD, ArrayView2, ArrayView4, ArrayViewD, Ix4, s};
use rayon::prelude::*;

use super::shape::{
    add_row, channel_vector, check_groups, check_index, check_positive, expect_shape, no_zero_extent, overflow,
    shape_error, window_count, zeros,
};
use super::{Real, ReferenceError};

const OPERATOR: &str = "deform_conv2d";

/// Options of [`deform_conv2d`], in the order height, width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeformSpec {
    /// Step between windows.
    pub stride: [usize; 2],
    /// Step between taps.
    pub dilation: [usize; 2],
    /// Padding at the (start, end) of each axis.
    pub pads: [(usize, usize); 2],
    /// Groups of channels of the weight.
    pub groups: usize,
    /// Groups of input channels that share offsets and masks; independent of `groups`.
    pub offset_groups: usize,
}

impl DeformSpec {
    /// Stride 1, dilation 1, no padding, one group, one offset group.
    #[must_use]
    pub fn new() -> Self {
        Self { stride: [1; 2], dilation: [1; 2], pads: [(0, 0); 2], groups: 1, offset_groups: 1 }
    }
}

impl Default for DeformSpec {
    fn default() -> Self {
        Self::new()
    }
}

/// Deformable convolution as in `torchvision.ops.deform_conv2d`.
///
/// `y[n,o,p] = bias[o] + sum over c in o's weight group, taps k of
/// w[o,c,k] * m[n,g,k,p] * x[n, c, p*stride - pad + k*dilation + offset[n,g,k,p]]`, `g = c / (C_in/OG)`
///
/// x `[N, C_in, H, W]`, w `[C_out, C_in/G, Kh, Kw]`, bias `[C_out]`, offset `[N, 2*OG*Kh*Kw, Ho, Wo]` with dy at channel
/// `2*(g*Kh*Kw + k)` and dx at the next, mask `[N, OG*Kh*Kw, Ho, Wo]` (none: 1), y `[N, C_out, Ho, Wo]`.
///
/// The coordinate is one `f32` addition of the grid position and the offset, whatever `T` is: that rounding belongs to
/// the definition. A sample is taken where `-1 < y < H` and `-1 < x < W`, else it is 0, so a coordinate that is NaN or
/// infinite gives 0. Neighbours outside the image are skipped; one inside that has weight 0 is multiplied, and a NaN
/// there shows. A sample of 0 is multiplied with its mask and weight like any other, as torchvision's columns are.
///
/// # Errors
/// Wrong shapes, groups that do not divide, an empty output.
pub fn deform_conv2d<T: Real>(
    x: ArrayViewD<T>,
    offset: ArrayViewD<T>,
    mask: Option<ArrayViewD<T>>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
    spec: &DeformSpec,
) -> Result<ArrayD<f64>, ReferenceError> {
    let problem = Problem::new(x, offset, mask, w, bias, spec)?;
    let [batch, c_out, out_h, out_w] = problem.out_shape;
    let taps = problem.kernel[0] * problem.kernel[1];
    // One task makes a row of every output channel, so that it can share the samples: y is [N, Ho, C_out, Wo] at first.
    let mut y = zeros(OPERATOR, &[batch, out_h, c_out, out_w])?;
    y.par_chunks_mut(c_out * out_w).enumerate().for_each(|(task, rows)| {
        let (n, p) = (task / out_h, task % out_h);
        let mut samples = vec![0.0; problem.c_in * taps * out_w];
        for (i, row) in samples.chunks_mut(out_w).enumerate() {
            let (c, k) = (i / taps, i % taps);
            for (q, sample) in row.iter_mut().enumerate() {
                *sample = problem.masked_sample(n, c, k, [p, q]);
            }
        }
        for (o, sums) in rows.chunks_mut(out_w).enumerate() {
            sums.fill(problem.bias[o]);
            for (c, k, weight) in problem.weights(o) {
                add_row(sums, weight, &samples[(c * taps + k) * out_w..][..out_w], 0, 1);
            }
        }
    });
    let y =
        Array4::from_shape_vec((batch, out_h, c_out, out_w), y).map_err(|e| shape_error(OPERATOR, e.to_string()))?;
    Ok(y.permuted_axes([0, 2, 1, 3]).as_standard_layout().into_owned().into_dyn())
}

/// One element `index = [n, o, y, x]` of [`deform_conv2d`].
///
/// # Errors
/// Those of [`deform_conv2d`], and an index outside the output.
pub fn deform_conv2d_at<T: Real>(
    x: ArrayViewD<T>,
    offset: ArrayViewD<T>,
    mask: Option<ArrayViewD<T>>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
    spec: &DeformSpec,
    index: &[usize],
) -> Result<f64, ReferenceError> {
    let problem = Problem::new(x, offset, mask, w, bias, spec)?;
    check_index(OPERATOR, index, &problem.out_shape)?;
    let (n, o, p) = (index[0], index[1], [index[2], index[3]]);
    let mut sum = problem.bias[o];
    for (c, k, weight) in problem.weights(o) {
        sum += weight * problem.masked_sample(n, c, k, p);
    }
    Ok(sum)
}

/// The shape `[N, C_out, Ho, Wo]` of [`deform_conv2d`]'s output; offset and mask have the same last two extents.
///
/// # Errors
/// Those of [`deform_conv2d`] that concern x and w.
pub fn deform_conv2d_out_shape(
    x_shape: &[usize],
    w_shape: &[usize],
    spec: &DeformSpec,
) -> Result<Vec<usize>, ReferenceError> {
    out_shape(x_shape, w_shape, spec).map(Vec::from)
}

fn out_shape(x_shape: &[usize], w_shape: &[usize], spec: &DeformSpec) -> Result<[usize; 4], ReferenceError> {
    for (argument, shape) in [("x", x_shape), ("w", w_shape)] {
        no_zero_extent(OPERATOR, argument, shape)?;
        if shape.len() != 4 {
            return Err(shape_error(OPERATOR, format!("{argument} must have 4 axes, got shape {shape:?}")));
        }
    }
    check_positive(OPERATOR, "stride", &spec.stride)?;
    check_positive(OPERATOR, "dilation", &spec.dilation)?;
    let (c_in, c_out) = (x_shape[1], w_shape[0]);
    check_groups(OPERATOR, "groups", spec.groups, &[("C_in", c_in), ("C_out", c_out)])?;
    check_groups(OPERATOR, "offset_groups", spec.offset_groups, &[("C_in", c_in)])?;
    if w_shape[1] != c_in / spec.groups {
        let message = format!("w must have C_in/groups = {} channels, got shape {w_shape:?}", c_in / spec.groups);
        return Err(shape_error(OPERATOR, message));
    }
    let mut shape = [x_shape[0], c_out, 0, 0];
    for axis in 0..2 {
        let (stride, dilation, pads) = (spec.stride[axis], spec.dilation[axis], spec.pads[axis]);
        shape[axis + 2] = window_count(OPERATOR, x_shape[axis + 2], w_shape[axis + 2], stride, dilation, pads)?;
    }
    Ok(shape)
}

/// The checked arguments of one call.
struct Problem<'a, T> {
    x: ArrayView4<'a, T>,
    offset: ArrayView4<'a, T>,
    mask: Option<ArrayView4<'a, T>>,
    w: ArrayView4<'a, T>,
    bias: Vec<f64>,
    spec: &'a DeformSpec,
    kernel: [usize; 2],
    c_in: usize,
    c_in_per_group: usize,
    c_out_per_group: usize,
    c_in_per_offset_group: usize,
    out_shape: [usize; 4],
}

impl<'a, T: Real> Problem<'a, T> {
    fn new(
        x: ArrayViewD<'a, T>,
        offset: ArrayViewD<'a, T>,
        mask: Option<ArrayViewD<'a, T>>,
        w: ArrayViewD<'a, T>,
        bias: Option<ArrayViewD<'a, T>>,
        spec: &'a DeformSpec,
    ) -> Result<Self, ReferenceError> {
        let out_shape = out_shape(x.shape(), w.shape(), spec)?;
        let [batch, c_out, out_h, out_w] = out_shape;
        let (c_in, kernel) = (x.shape()[1], [w.shape()[2], w.shape()[3]]);
        let masks = [kernel[0], kernel[1], spec.offset_groups]
            .iter()
            .try_fold(1usize, |product, factor| product.checked_mul(*factor))
            .ok_or_else(|| overflow(OPERATOR))?;
        let offsets = masks.checked_mul(2).ok_or_else(|| overflow(OPERATOR))?;
        expect_shape(OPERATOR, "offset", offset.shape(), &[batch, offsets, out_h, out_w])?;
        if let Some(mask) = &mask {
            expect_shape(OPERATOR, "mask", mask.shape(), &[batch, masks, out_h, out_w])?;
        }
        Ok(Self {
            x: four_axes(x)?,
            offset: four_axes(offset)?,
            mask: mask.map(four_axes).transpose()?,
            w: four_axes(w)?,
            bias: channel_vector(OPERATOR, "bias", bias, c_out)?,
            spec,
            kernel,
            c_in,
            c_in_per_group: c_in / spec.groups,
            c_out_per_group: c_out / spec.groups,
            c_in_per_offset_group: c_in / spec.offset_groups,
            out_shape,
        })
    }

    /// Every (input channel, tap, weight) that output channel `o` sums over.
    fn weights(&self, o: usize) -> impl Iterator<Item = (usize, usize, f64)> {
        let first_channel = o / self.c_out_per_group * self.c_in_per_group;
        let [kh, kw] = self.kernel;
        (0..self.c_in_per_group).flat_map(move |c| {
            (0..kh * kw).map(move |k| (first_channel + c, k, self.w[[o, c, k / kw, k % kw]].to_f64()))
        })
    }

    /// `m[n,g,k,p] * x[n, c, p*stride - pad + k*dilation + offset[n,g,k,p]]`.
    fn masked_sample(&self, n: usize, c: usize, k: usize, p: [usize; 2]) -> f64 {
        let [kh, kw] = self.kernel;
        let mask_channel = c / self.c_in_per_offset_group * kh * kw + k;
        let dy = self.offset[[n, 2 * mask_channel, p[0], p[1]]];
        let dx = self.offset[[n, 2 * mask_channel + 1, p[0], p[1]]];
        let y = self.coordinate(0, p[0], k / kw, dy);
        let x = self.coordinate(1, p[1], k % kw, dx);
        let sample = bilinear(self.x.slice(s![n, c, .., ..]), y, x);
        match &self.mask {
            Some(mask) => mask[[n, mask_channel, p[0], p[1]]].to_f64() * sample,
            None => sample,
        }
    }

    fn coordinate(&self, axis: usize, p: usize, k: usize, offset: T) -> f32 {
        let grid = (p * self.spec.stride[axis] + k * self.spec.dilation[axis]) as isize;
        (grid - self.spec.pads[axis].0 as isize) as f32 + offset.to_f64() as f32
    }
}

fn four_axes<T>(array: ArrayViewD<T>) -> Result<ArrayView4<T>, ReferenceError> {
    array.into_dimensionality::<Ix4>().map_err(|e| shape_error(OPERATOR, e.to_string()))
}

/// torchvision's bilinear rule at an `f32` coordinate; the weights are `f64`.
fn bilinear<T: Real>(image: ArrayView2<T>, y: f32, x: f32) -> f64 {
    let (height, width) = image.dim();
    let (y, x) = (f64::from(y), f64::from(x));
    // Accepts what is inside rather than rejecting what is outside: every comparison with NaN is false.
    let inside = y > -1.0 && y < height as f64 && x > -1.0 && x < width as f64;
    if !inside {
        return 0.0;
    }
    let (top, left) = (y.floor(), x.floor());
    let (below, right) = (y - top, x - left);
    let (top, left) = (top as isize, left as isize);
    let mut sum = 0.0;
    for (row, row_weight) in [(top, 1.0 - below), (top + 1, below)] {
        for (column, column_weight) in [(left, 1.0 - right), (left + 1, right)] {
            let in_image = (0..height as isize).contains(&row) && (0..width as isize).contains(&column);
            if in_image {
                sum += row_weight * column_weight * image[[row as usize, column as usize]].to_f64();
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, IxDyn, arr2};

    #[test]
    fn bilinear_by_hand() {
        let image = arr2(&[[1.0f32, 2.0], [3.0, 5.0]]);
        let at = |y, x| bilinear(image.view(), y, x);
        assert_eq!(at(0.0, 1.0), 2.0);
        assert_eq!(at(0.5, 0.25), 0.375 + 0.25 + 1.125 + 0.625);
        // Up to one pixel outside, the image fades to 0.
        assert_eq!(at(-0.5, 0.0), 0.5);
        assert_eq!(at(1.75, 1.5), 0.25 * 0.5 * 5.0);
        let far =
            [(-1.0, 0.0), (2.0, 0.0), (0.0, -1.0), (0.0, 2.0), (f32::NAN, 0.0), (0.0, f32::INFINITY), (-3e38, 1.0)];
        for (y, x) in far {
            assert_eq!(at(y, x), 0.0, "{y} {x}");
        }
    }

    #[test]
    fn neighbours_of_weight_zero_show_nan() {
        let image = arr2(&[[1.0f32, f32::NAN], [3.0, 4.0]]);
        assert!(bilinear(image.view(), 0.0, 0.0).is_nan());
        // Here the pixel to the right lies outside the image, the NaN above is not a neighbour.
        assert_eq!(bilinear(image.view(), 1.0, 1.0), 4.0);
    }

    #[test]
    fn the_coordinate_is_rounded_to_f32() {
        let x = Array::from_shape_fn(IxDyn(&[1, 1, 1, 9]), |i| i[3] as f64);
        let offset = Array::from_shape_vec(IxDyn(&[1, 2, 1, 9]), [[0.0; 9], [1e-9; 9]].concat()).unwrap();
        let w = ArrayD::<f64>::ones(IxDyn(&[1, 1, 1, 1]));
        let y = deform_conv2d(x.view(), offset.view(), None, w.view(), None, &DeformSpec::new()).unwrap();
        assert_eq!(y[[0, 0, 0, 0]], f64::from(1e-9f32));
        assert_eq!(y[[0, 0, 0, 4]], 4.0);
    }

    #[test]
    fn mistakes_are_errors() {
        let spec = DeformSpec { offset_groups: 2, ..DeformSpec::new() };
        assert_eq!(deform_conv2d_out_shape(&[1, 4, 5, 6], &[3, 4, 3, 3], &spec), Ok(vec![1, 3, 3, 4]));
        assert!(deform_conv2d_out_shape(&[1, 3, 5, 6], &[3, 3, 3, 3], &spec).is_err());
        let x = ArrayD::<f32>::zeros(IxDyn(&[1, 4, 5, 6]));
        let w = ArrayD::<f32>::zeros(IxDyn(&[3, 4, 3, 3]));
        let offset = ArrayD::<f32>::zeros(IxDyn(&[1, 36, 3, 4]));
        let mask = ArrayD::<f32>::zeros(IxDyn(&[1, 9, 3, 4]));
        assert!(deform_conv2d(x.view(), offset.view(), None, w.view(), None, &spec).is_ok());
        assert!(deform_conv2d(x.view(), offset.view(), Some(mask.view()), w.view(), None, &spec).is_err());
        assert!(deform_conv2d(x.view(), mask.view(), None, w.view(), None, &spec).is_err());
    }
}
