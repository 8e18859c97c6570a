//! Transposed convolution of rank 1, 2 and 3, in scatter form: every input is added into the outputs it reaches.
//! The GPU gathers, so the two have no index arithmetic in common.

use ndarray::{ArrayD, ArrayViewD};
use rayon::prelude::*;

use super::shape::{
    Rows, channel_vector, check_axes, check_groups, check_index, check_positive, into_array, kernel_reach,
    no_zero_extent, overflow, reaching, shape_error, spatial_rank, spec_error, sum, tap, three, volume, zeros,
};
use super::{Real, ReferenceError};

const OPERATOR: &str = "conv_transpose";

/// Options of [`conv_transpose`]; every list has one entry a spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTransposeSpec {
    /// Step between the outputs of neighbouring inputs.
    pub stride: Vec<usize>,
    /// Step between taps.
    pub dilation: Vec<usize>,
    /// What is cut off at the (start, end) of each axis.
    pub pads: Vec<(usize, usize)>,
    /// Positions added at the end; less than `max(stride, dilation)`.
    pub output_padding: Vec<usize>,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl ConvTransposeSpec {
    /// Stride 1, dilation 1, no padding, no output padding, one group.
    #[must_use]
    pub fn new(rank: usize) -> Self {
        Self {
            stride: vec![1; rank],
            dilation: vec![1; rank],
            pads: vec![(0, 0); rank],
            output_padding: vec![0; rank],
            groups: 1,
        }
    }
}

/// Transposed convolution as in `torch.nn.functional.conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d`.
///
/// `y[n,o,q] = bias[o] + sum over c in o's group, i, k with i*stride - pad_start + k*dilation = q of
/// x[n,c,i] * w[c, o mod (C_out/G), k]`
///
/// x `[N, C_in, ...]`, w `[C_in, C_out/G, K...]`, bias `[C_out]`, y `[N, C_out, ...]` with the extents of
/// [`conv_transpose_out_shape`]. An output that no tap reaches is the bias.
///
/// # Errors
/// Wrong shapes, groups that do not divide, an empty output, an output padding that is too large.
pub fn conv_transpose<T: Real>(
    x: ArrayViewD<T>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
    spec: &ConvTransposeSpec,
) -> Result<ArrayD<f64>, ReferenceError> {
    let g = Geometry::new(x.shape(), w.shape(), spec)?;
    let bias = channel_vector(OPERATOR, "bias", bias, g.c_out)?;
    let (x, w) = (Rows::new(volume(OPERATOR, x)?), volume(OPERATOR, w)?);
    let [out_d, out_h, out_w] = g.output;
    let [in_d, in_h, in_w] = g.input;
    let mut y = zeros(OPERATOR, &g.out_shape)?;
    // For each tap along a row: the inputs whose output is kept, and the output of the first of them.
    let row_taps: Vec<_> = (0..g.kernel[2])
        .map(|kx| {
            let shift = kx * g.dilation[2];
            let kept = reaching(in_w, g.stride[2], shift, g.pad_start[2], out_w);
            let first = (kept.start * g.stride[2] + shift).saturating_sub(g.pad_start[2]);
            (kept, first)
        })
        .collect();
    y.par_chunks_mut(out_d * out_h * out_w).enumerate().for_each(|(plane_index, plane)| {
        let (n, o) = (plane_index / g.c_out, plane_index % g.c_out);
        let (group, o_in_group) = (o / g.c_out_per_group, o % g.c_out_per_group);
        plane.fill(bias[o]);
        for c in group * g.c_in_per_group..(group + 1) * g.c_in_per_group {
            for (iz, kz) in pairs(in_d, g.kernel[0]) {
                let Some(qz) = g.target(0, iz, kz) else { continue };
                for (iy, ky) in pairs(in_h, g.kernel[1]) {
                    let Some(qy) = g.target(1, iy, ky) else { continue };
                    let inputs = x.row(n, c, iz, iy);
                    let start = (qz * out_h + qy) * out_w;
                    let sums = &mut plane[start..start + out_w];
                    for (kx, (kept, first)) in row_taps.iter().enumerate() {
                        let weight = w[[c, o_in_group, kz, ky, kx]].to_f64();
                        for (step, value) in inputs[kept.clone()].iter().enumerate() {
                            sums[first + step * g.stride[2]] += weight * value.to_f64();
                        }
                    }
                }
            }
        }
    });
    into_array(OPERATOR, &g.out_shape, y)
}

/// One element `index = [n, o, q...]` of [`conv_transpose`]: the taps and inputs that meet at `q`.
///
/// # Errors
/// Those of [`conv_transpose`], and an index outside the output.
pub fn conv_transpose_at<T: Real>(
    x: ArrayViewD<T>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
    spec: &ConvTransposeSpec,
    index: &[usize],
) -> Result<f64, ReferenceError> {
    let g = Geometry::new(x.shape(), w.shape(), spec)?;
    let bias = channel_vector(OPERATOR, "bias", bias, g.c_out)?;
    check_index(OPERATOR, index, &g.out_shape)?;
    let (n, o) = (index[0], index[1]);
    let (group, o_in_group) = (o / g.c_out_per_group, o % g.c_out_per_group);
    let (x, w) = (volume(OPERATOR, x)?, volume(OPERATOR, w)?);
    // The (input, tap) pairs of each axis that land on this output.
    let q = three(&index[2..], 0);
    let meeting = [0, 1, 2].map(|axis| {
        let input_of = |k: usize| {
            let distance = (q[axis] + g.pad_start[axis]).checked_sub(k * g.dilation[axis])?;
            let i = distance / g.stride[axis];
            (distance % g.stride[axis] == 0 && i < g.input[axis]).then_some((i, k))
        };
        (0..g.kernel[axis]).filter_map(input_of).collect::<Vec<_>>()
    });
    let mut sum = bias[o];
    for c in group * g.c_in_per_group..(group + 1) * g.c_in_per_group {
        for &(iz, kz) in &meeting[0] {
            for &(iy, ky) in &meeting[1] {
                for &(ix, kx) in &meeting[2] {
                    sum += x[[n, c, iz, iy, ix]].to_f64() * w[[c, o_in_group, kz, ky, kx]].to_f64();
                }
            }
        }
    }
    Ok(sum)
}

/// The shape of [`conv_transpose`]'s output:
/// `(in-1)*stride - pad_start - pad_end + dilation*(K-1) + output_padding + 1` an axis.
///
/// # Errors
/// Those of [`conv_transpose`].
pub fn conv_transpose_out_shape(
    x_shape: &[usize],
    w_shape: &[usize],
    spec: &ConvTransposeSpec,
) -> Result<Vec<usize>, ReferenceError> {
    Ok(Geometry::new(x_shape, w_shape, spec)?.out_shape)
}

/// The checked numbers of one call, spatial lists brought to three axes.
struct Geometry {
    input: [usize; 3],
    kernel: [usize; 3],
    output: [usize; 3],
    stride: [usize; 3],
    dilation: [usize; 3],
    pad_start: [usize; 3],
    c_out: usize,
    c_in_per_group: usize,
    c_out_per_group: usize,
    out_shape: Vec<usize>,
}

impl Geometry {
    fn new(x_shape: &[usize], w_shape: &[usize], spec: &ConvTransposeSpec) -> Result<Self, ReferenceError> {
        let rank = spatial_rank(OPERATOR, "x", x_shape)?;
        no_zero_extent(OPERATOR, "w", w_shape)?;
        if w_shape.len() != rank + 2 {
            return Err(shape_error(OPERATOR, format!("w must have {} axes as x has, got {w_shape:?}", rank + 2)));
        }
        check_axes(OPERATOR, "stride", spec.stride.len(), rank)?;
        check_axes(OPERATOR, "dilation", spec.dilation.len(), rank)?;
        check_axes(OPERATOR, "pads", spec.pads.len(), rank)?;
        check_axes(OPERATOR, "output_padding", spec.output_padding.len(), rank)?;
        check_positive(OPERATOR, "stride", &spec.stride)?;
        check_positive(OPERATOR, "dilation", &spec.dilation)?;
        let c_in = x_shape[1];
        check_groups(OPERATOR, "groups", spec.groups, &[("C_in", c_in)])?;
        if w_shape[0] != c_in {
            return Err(shape_error(OPERATOR, format!("w must have C_in = {c_in} first, got shape {w_shape:?}")));
        }
        let c_out_per_group = w_shape[1];
        let c_out = c_out_per_group.checked_mul(spec.groups).ok_or_else(|| overflow(OPERATOR))?;
        let mut out_shape = vec![x_shape[0], c_out];
        for axis in 0..rank {
            out_shape.push(extent(x_shape[axis + 2], w_shape[axis + 2], spec, axis)?);
        }
        let starts: Vec<usize> = spec.pads.iter().map(|(start, _)| *start).collect();
        Ok(Self {
            input: three(&x_shape[2..], 1),
            kernel: three(&w_shape[2..], 1),
            output: three(&out_shape[2..], 1),
            stride: three(&spec.stride, 1),
            dilation: three(&spec.dilation, 1),
            pad_start: three(&starts, 0),
            c_out,
            c_in_per_group: c_in / spec.groups,
            c_out_per_group,
            out_shape,
        })
    }

    /// The output that input `i` adds to through tap `k` on this axis; `None` where it is cut off.
    fn target(&self, axis: usize, i: usize, k: usize) -> Option<usize> {
        tap(i, self.stride[axis], k, self.dilation[axis], self.pad_start[axis], self.output[axis])
    }
}

fn extent(input: usize, kernel: usize, spec: &ConvTransposeSpec, axis: usize) -> Result<usize, ReferenceError> {
    let (stride, dilation) = (spec.stride[axis], spec.dilation[axis]);
    let (output_padding, pads) = (spec.output_padding[axis], spec.pads[axis]);
    if output_padding >= stride.max(dilation) {
        let message = format!(
            "output_padding = {output_padding} must be less than stride = {stride} or dilation = {dilation} on axis {axis}"
        );
        return Err(spec_error(OPERATOR, message));
    }
    let last_start = (input - 1).checked_mul(stride).ok_or_else(|| overflow(OPERATOR))?;
    let full = sum(OPERATOR, &[last_start, kernel_reach(OPERATOR, kernel, dilation)?, output_padding])?;
    let cut = sum(OPERATOR, &[pads.0, pads.1])?;
    // `target` adds the start padding to positions of the output.
    sum(OPERATOR, &[full, cut])?;
    match full.checked_sub(cut) {
        Some(extent) if extent > 0 => Ok(extent),
        _ => Err(ReferenceError::EmptyOutput {
            operator: OPERATOR,
            message: format!("on axis {axis} padding cuts {cut} of {full} positions"),
        }),
    }
}

fn pairs(inputs: usize, taps: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..inputs).flat_map(move |i| (0..taps).map(move |k| (i, k)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, IxDyn, arr1};

    fn line(values: &[f64]) -> ArrayD<f64> {
        Array::from_shape_vec(IxDyn(&[1, 1, values.len()]), values.to_vec()).unwrap()
    }

    #[test]
    fn stride_output_padding_and_bias_by_hand() {
        let spec = ConvTransposeSpec {
            stride: vec![3],
            pads: vec![(1, 0)],
            output_padding: vec![2],
            ..ConvTransposeSpec::new(1)
        };
        let (x, w, bias) = (line(&[1.0, 2.0]), line(&[1.0, 10.0]), arr1(&[100.0]).into_dyn());
        let y = conv_transpose(x.view(), w.view(), Some(bias.view()), &spec).unwrap();
        // Before the cut: 1 10 0 2 20 and two more that nothing reaches.
        assert_eq!(y.as_slice().unwrap(), [110.0, 100.0, 102.0, 120.0, 100.0, 100.0]);
        for (q, value) in y.iter().enumerate() {
            let one = conv_transpose_at(x.view(), w.view(), Some(bias.view()), &spec, &[0, 0, q]).unwrap();
            assert_eq!(one, *value);
        }
    }

    #[test]
    fn mistakes_are_errors() {
        let good = ConvTransposeSpec::new(1);
        assert_eq!(conv_transpose_out_shape(&[1, 4, 5], &[4, 2, 3], &good), Ok(vec![1, 2, 7]));
        let bad = [
            ConvTransposeSpec { output_padding: vec![1], ..good.clone() },
            ConvTransposeSpec { pads: vec![(4, 3)], ..good.clone() },
            ConvTransposeSpec { groups: 3, ..good.clone() },
            ConvTransposeSpec { stride: vec![usize::MAX], ..good.clone() },
            ConvTransposeSpec { pads: vec![], ..good.clone() },
        ];
        for spec in bad {
            assert!(conv_transpose_out_shape(&[1, 4, 5], &[4, 2, 3], &spec).is_err(), "{spec:?}");
        }
        assert!(conv_transpose_out_shape(&[1, 3, 5], &[4, 2, 3], &good).is_err());
    }
}
