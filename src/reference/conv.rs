//! Convolution of rank 1, 2 and 3: dense, grouped, depthwise, dilated, strided, with every border rule.

use ndarray::{Array5, ArrayD, ArrayView5, ArrayViewD};
use rayon::prelude::*;

use super::shape::{
    Rows, add_row, channel_vector, check_axes, check_groups, check_index, check_positive, into_array, no_zero_extent,
    reaching, reserve, shape_error, spatial_rank, spec_error, tap, three, volume, window_count, zeros,
};
use super::{Real, ReferenceError};

const OPERATOR: &str = "conv";

/// What a tap beyond the input reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BorderMode {
    /// Nothing: the tap is skipped.
    #[default]
    Zeros,
    /// The mirror image without repeating the edge, `dcb|abcd|cba`; padding must be less than the extent.
    Reflect,
    /// The edge, `aaa|abcd|ddd`.
    Replicate,
    /// The opposite side, `bcd|abcd|abc`; padding must be at most the extent.
    Circular,
}

/// Options of [`conv`]; every list has one entry a spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Step between windows.
    pub stride: Vec<usize>,
    /// Step between taps.
    pub dilation: Vec<usize>,
    /// Padding at the (start, end) of each axis.
    pub pads: Vec<(usize, usize)>,
    /// Groups of channels that do not see each other; `C_in` for depthwise.
    pub groups: usize,
    /// What padding reads.
    pub border: BorderMode,
    /// Turn the kernel round on every axis: true convolution instead of cross-correlation.
    pub flip_kernel: bool,
}

impl ConvSpec {
    /// Stride 1, dilation 1, no padding, one group, zero border, not flipped.
    #[must_use]
    pub fn new(rank: usize) -> Self {
        Self {
            stride: vec![1; rank],
            dilation: vec![1; rank],
            pads: vec![(0, 0); rank],
            groups: 1,
            border: BorderMode::Zeros,
            flip_kernel: false,
        }
    }
}

/// Cross-correlation as in `torch.nn.functional.conv1d`, `conv2d` and `conv3d`.
///
/// `y[n,o,q] = bias[o] + sum over c in o's group, taps k of w[o,c,k] * x[n, c, q*stride - pad + k*dilation]`
///
/// x `[N, C_in, ...]`, w `[C_out, C_in/G, K...]`, bias `[C_out]`, y `[N, C_out, ...]` with the extents of
/// [`conv_out_shape`]. Taps in zero padding are skipped, not multiplied with 0.
///
/// # Errors
/// Wrong shapes, groups that do not divide, an empty output, a reflection or wrap wider than the input.
pub fn conv<T: Real>(
    x: ArrayViewD<T>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
    spec: &ConvSpec,
) -> Result<ArrayD<f64>, ReferenceError> {
    let geometry = Geometry::new(x.shape(), w.shape(), spec)?;
    let bias = channel_vector(OPERATOR, "bias", bias, geometry.c_out)?;
    let (x, w) = (volume(OPERATOR, x)?, volume(OPERATOR, w)?);
    let mut y = zeros(OPERATOR, &geometry.out_shape)?;
    if geometry.border == BorderMode::Zeros {
        convolve(x, w, &bias, &geometry, &mut y);
    } else {
        // As PyTorch does it: write the border out, then convolve what is now an unpadded input.
        let padded = write_border(x, &geometry)?;
        let (_, _, depth, height, width) = padded.dim();
        let inner = Geometry { input: [depth, height, width], pads: [(0, 0); 3], ..geometry.clone() };
        convolve(padded.view(), w, &bias, &inner, &mut y);
    }
    into_array(OPERATOR, &geometry.out_shape, y)
}

/// One element `index = [n, o, q...]` of [`conv`], for layers too large to compute whole.
///
/// # Errors
/// Those of [`conv`], and an index outside the output.
pub fn conv_at<T: Real>(
    x: ArrayViewD<T>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
    spec: &ConvSpec,
    index: &[usize],
) -> Result<f64, ReferenceError> {
    let g = Geometry::new(x.shape(), w.shape(), spec)?;
    let bias = channel_vector(OPERATOR, "bias", bias, g.c_out)?;
    check_index(OPERATOR, index, &g.out_shape)?;
    let (n, o) = (index[0], index[1]);
    let [qz, qy, qx] = three(&index[2..], 0);
    let (x, w) = (volume(OPERATOR, x)?, volume(OPERATOR, w)?);
    let first_channel = o / g.c_out_per_group * g.c_in_per_group;
    let mut sum = bias[o];
    for c in 0..g.c_in_per_group {
        for kz in 0..g.kernel[0] {
            for ky in 0..g.kernel[1] {
                for kx in 0..g.kernel[2] {
                    let source = (g.source(0, qz, kz), g.source(1, qy, ky), g.source(2, qx, kx));
                    if let (Some(z), Some(y), Some(x_at)) = source {
                        let weight = w[g.weight_index(o, c, [kz, ky, kx])].to_f64();
                        sum += weight * x[[n, first_channel + c, z, y, x_at]].to_f64();
                    }
                }
            }
        }
    }
    Ok(sum)
}

/// The shape of [`conv`]'s output: `floor((in + pad_start + pad_end - dilation*(K-1) - 1)/stride) + 1` an axis.
///
/// # Errors
/// Those of [`conv`].
pub fn conv_out_shape(x_shape: &[usize], w_shape: &[usize], spec: &ConvSpec) -> Result<Vec<usize>, ReferenceError> {
    Ok(Geometry::new(x_shape, w_shape, spec)?.out_shape)
}

/// The checked numbers of one call, spatial lists brought to three axes.
#[derive(Clone)]
struct Geometry {
    input: [usize; 3],
    kernel: [usize; 3],
    output: [usize; 3],
    stride: [usize; 3],
    dilation: [usize; 3],
    pads: [(usize, usize); 3],
    c_out: usize,
    c_in_per_group: usize,
    c_out_per_group: usize,
    border: BorderMode,
    flip_kernel: bool,
    out_shape: Vec<usize>,
}

impl Geometry {
    fn new(x_shape: &[usize], w_shape: &[usize], spec: &ConvSpec) -> Result<Self, ReferenceError> {
        let rank = spatial_rank(OPERATOR, "x", x_shape)?;
        no_zero_extent(OPERATOR, "w", w_shape)?;
        if w_shape.len() != rank + 2 {
            return Err(shape_error(OPERATOR, format!("w must have {} axes as x has, got {w_shape:?}", rank + 2)));
        }
        check_axes(OPERATOR, "stride", spec.stride.len(), rank)?;
        check_axes(OPERATOR, "dilation", spec.dilation.len(), rank)?;
        check_axes(OPERATOR, "pads", spec.pads.len(), rank)?;
        check_positive(OPERATOR, "stride", &spec.stride)?;
        check_positive(OPERATOR, "dilation", &spec.dilation)?;
        let (c_in, c_out) = (x_shape[1], w_shape[0]);
        check_groups(OPERATOR, "groups", spec.groups, &[("C_in", c_in), ("C_out", c_out)])?;
        let c_in_per_group = c_in / spec.groups;
        if w_shape[1] != c_in_per_group {
            let message = format!("w must have C_in/groups = {c_in_per_group} channels, got shape {w_shape:?}");
            return Err(shape_error(OPERATOR, message));
        }
        let mut out_shape = vec![x_shape[0], c_out];
        for axis in 0..rank {
            let (extent, pads) = (x_shape[axis + 2], spec.pads[axis]);
            check_border(spec.border, extent, pads)?;
            let (stride, dilation) = (spec.stride[axis], spec.dilation[axis]);
            out_shape.push(window_count(OPERATOR, extent, w_shape[axis + 2], stride, dilation, pads)?);
        }
        Ok(Self {
            input: three(&x_shape[2..], 1),
            kernel: three(&w_shape[2..], 1),
            output: three(&out_shape[2..], 1),
            stride: three(&spec.stride, 1),
            dilation: three(&spec.dilation, 1),
            pads: three(&spec.pads, (0, 0)),
            c_out,
            c_in_per_group,
            c_out_per_group: c_out / spec.groups,
            border: spec.border,
            flip_kernel: spec.flip_kernel,
            out_shape,
        })
    }

    /// The input position that tap `k` of window `q` reads on this axis; `None` in zero padding.
    fn source(&self, axis: usize, q: usize, k: usize) -> Option<usize> {
        let padded_position = q * self.stride[axis] + k * self.dilation[axis];
        border_source(self.border, padded_position, self.pads[axis].0, self.input[axis])
    }

    fn weight_index(&self, o: usize, c: usize, k: [usize; 3]) -> [usize; 5] {
        let [z, y, x] = k;
        if self.flip_kernel {
            let [kd, kh, kw] = self.kernel;
            [o, c, kd - 1 - z, kh - 1 - y, kw - 1 - x]
        } else {
            [o, c, z, y, x]
        }
    }
}

fn check_border(border: BorderMode, extent: usize, pads: (usize, usize)) -> Result<(), ReferenceError> {
    let widest = pads.0.max(pads.1);
    match border {
        BorderMode::Reflect if widest >= extent => {
            Err(spec_error(OPERATOR, format!("reflect needs padding less than the extent {extent}, got {widest}")))
        }
        BorderMode::Circular if widest > extent => {
            Err(spec_error(OPERATOR, format!("circular needs padding of at most the extent {extent}, got {widest}")))
        }
        _ => Ok(()),
    }
}

/// The input position behind a position of the padded axis; padding was checked, so one reflection or wrap is enough.
fn border_source(border: BorderMode, padded_position: usize, pad_start: usize, extent: usize) -> Option<usize> {
    let (position, extent) = (padded_position as isize - pad_start as isize, extent as isize);
    let source = match border {
        BorderMode::Zeros if position < 0 || position >= extent => return None,
        BorderMode::Zeros => position,
        BorderMode::Reflect if position < 0 => -position,
        BorderMode::Reflect if position >= extent => 2 * (extent - 1) - position,
        BorderMode::Reflect => position,
        BorderMode::Replicate => position.clamp(0, extent - 1),
        BorderMode::Circular => position.rem_euclid(extent),
    };
    Some(source as usize)
}

/// The input with its border written out, as `torch.nn.functional.pad` does.
fn write_border<T: Real>(x: ArrayView5<T>, g: &Geometry) -> Result<Array5<T>, ReferenceError> {
    let (batch, channels, ..) = x.dim();
    // For each position of a padded axis, the position in the input that it repeats.
    let [depth, height, width] = [0, 1, 2].map(|axis| {
        let (start, end) = g.pads[axis];
        let repeated = |i| border_source(g.border, i, start, g.input[axis]);
        (0..start + g.input[axis] + end).filter_map(repeated).collect::<Vec<_>>()
    });
    let shape = [batch, channels, depth.len(), height.len(), width.len()];
    let (mut padded, _) = reserve(OPERATOR, &shape)?;
    let x = Rows::new(x);
    for (n, c) in (0..batch).flat_map(|n| (0..channels).map(move |c| (n, c))) {
        for z in &depth {
            for y in &height {
                let row = x.row(n, c, *z, *y);
                padded.extend(width.iter().map(|i| row[*i]));
            }
        }
    }
    Array5::from_shape_vec(shape, padded).map_err(|e| shape_error(OPERATOR, e.to_string()))
}

/// Convolution with zero padding, whatever `g.border` says. `y` is in standard layout.
fn convolve<T: Real>(x: ArrayView5<T>, w: ArrayView5<T>, bias: &[f64], g: &Geometry, y: &mut [f64]) {
    let x = Rows::new(x);
    let [out_d, out_h, out_w] = g.output;
    // For each tap along a row: which outputs it serves, and the input position of the first of them.
    let row_taps: Vec<_> = (0..g.kernel[2])
        .map(|kx| {
            let shift = kx * g.dilation[2];
            let served = reaching(out_w, g.stride[2], shift, g.pads[2].0, g.input[2]);
            let first = (served.start * g.stride[2] + shift).saturating_sub(g.pads[2].0);
            (served, first)
        })
        .collect();
    y.par_chunks_mut(out_d * out_h * out_w).enumerate().for_each(|(plane_index, plane)| {
        let (n, o) = (plane_index / g.c_out, plane_index % g.c_out);
        let first_channel = o / g.c_out_per_group * g.c_in_per_group;
        for (row_index, sums) in plane.chunks_mut(out_w).enumerate() {
            let (qz, qy) = (row_index / out_h, row_index % out_h);
            sums.fill(bias[o]);
            for c in 0..g.c_in_per_group {
                for kz in 0..g.kernel[0] {
                    let z = tap(qz, g.stride[0], kz, g.dilation[0], g.pads[0].0, g.input[0]);
                    let Some(z) = z else { continue };
                    for ky in 0..g.kernel[1] {
                        let y = tap(qy, g.stride[1], ky, g.dilation[1], g.pads[1].0, g.input[1]);
                        let Some(y) = y else { continue };
                        let row = x.row(n, first_channel + c, z, y);
                        for (kx, (served, first)) in row_taps.iter().enumerate() {
                            if served.is_empty() {
                                continue;
                            }
                            let weight = w[g.weight_index(o, c, [kz, ky, kx])].to_f64();
                            add_row(&mut sums[served.clone()], weight, row, *first, g.stride[2]);
                        }
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, IxDyn, arr1};

    fn line(values: &[f64]) -> ArrayD<f64> {
        Array::from_shape_vec(IxDyn(&[1, 1, values.len()]), values.to_vec()).unwrap()
    }

    fn conv_line(x: &[f64], w: &[f64], spec: &ConvSpec) -> Vec<f64> {
        let (x, w) = (line(x), line(w));
        let whole = conv(x.view(), w.view(), None, spec).unwrap();
        for (q, value) in whole.iter().enumerate() {
            assert_eq!(conv_at(x.view(), w.view(), None, spec, &[0, 0, q]).unwrap(), *value);
        }
        whole.into_iter().collect()
    }

    #[test]
    fn borders_by_hand() {
        let mut spec = ConvSpec { pads: vec![(2, 1)], ..ConvSpec::new(1) };
        let mut with = |border, flip_kernel| {
            spec.border = border;
            spec.flip_kernel = flip_kernel;
            conv_line(&[1.0, 2.0, 3.0], &[1.0, 10.0], &spec)
        };
        assert_eq!(with(BorderMode::Zeros, false), [0.0, 10.0, 21.0, 32.0, 3.0]);
        assert_eq!(with(BorderMode::Reflect, false), [23.0, 12.0, 21.0, 32.0, 23.0]);
        assert_eq!(with(BorderMode::Replicate, false), [11.0, 11.0, 21.0, 32.0, 33.0]);
        assert_eq!(with(BorderMode::Circular, false), [32.0, 13.0, 21.0, 32.0, 13.0]);
        assert_eq!(with(BorderMode::Zeros, true), [0.0, 1.0, 12.0, 23.0, 30.0]);
    }

    #[test]
    fn stride_and_dilation_by_hand() {
        let spec = ConvSpec { stride: vec![2], dilation: vec![3], pads: vec![(1, 2)], ..ConvSpec::new(1) };
        // Windows start at -1, 1, 3 and read that position and the one three further on.
        assert_eq!(conv_line(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1.0, 10.0], &spec), [30.0, 52.0, 4.0]);
    }

    #[test]
    fn padding_does_not_touch_nan_weights() {
        let spec = ConvSpec { pads: vec![(1, 0)], ..ConvSpec::new(1) };
        let y = conv_line(&[5.0], &[f64::NAN, 2.0], &spec);
        assert_eq!(y, [10.0]);
    }

    #[test]
    fn mistakes_are_errors() {
        let x = ArrayD::<f32>::zeros(IxDyn(&[1, 4, 5]));
        let w = ArrayD::<f32>::zeros(IxDyn(&[6, 2, 3]));
        let good = ConvSpec { groups: 2, ..ConvSpec::new(1) };
        assert_eq!(conv_out_shape(x.shape(), w.shape(), &good), Ok(vec![1, 6, 3]));
        let bad = [
            ConvSpec { groups: 0, ..good.clone() },
            ConvSpec { groups: 4, ..good.clone() },
            ConvSpec { stride: vec![0], ..good.clone() },
            ConvSpec { stride: vec![1, 1], ..good.clone() },
            ConvSpec { dilation: vec![3], ..good.clone() },
            ConvSpec { pads: vec![(0, 5)], border: BorderMode::Reflect, ..good.clone() },
            ConvSpec { pads: vec![(6, 0)], border: BorderMode::Circular, ..good.clone() },
            ConvSpec { pads: vec![(usize::MAX, 1)], ..good.clone() },
        ];
        for spec in bad {
            assert!(conv(x.view(), w.view(), None, &spec).is_err(), "{spec:?}");
        }
        let bias = arr1(&[0.0f32; 5]).into_dyn();
        assert!(conv(x.view(), w.view(), Some(bias.view()), &good).is_err());
        assert!(conv_at(x.view(), w.view(), None, &good, &[0, 6, 0]).is_err());
        assert!(conv_at(x.view(), w.view(), None, &good, &[0, 0]).is_err());
        let empty = ArrayD::<f32>::zeros(IxDyn(&[0, 4, 5]));
        assert!(conv(empty.view(), w.view(), None, &good).is_err());
    }
}
