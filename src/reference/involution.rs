//! Involution, Li et al. 2021 (<https://arxiv.org/abs/2103.06255>): a kernel for each pixel, shared within a channel
//! group; and the layer that makes that kernel from the input.

use ndarray::{ArrayD, ArrayView1, ArrayView4, ArrayView6, ArrayViewD, Ix4, Ix6, s};
use rayon::prelude::*;

use super::pool::{AvgPoolSpec, avg_pool};
use super::shape::{
    channel_vector, check_groups, check_index, check_positive, into_array, no_zero_extent, overflow, shape_error, tap,
    window_count, zeros,
};
use super::{ActivationKind, BatchNormParams, ConvSpec, Real, ReferenceError, apply, batch_norm, conv};

const OPERATOR: &str = "involution2d";

/// Options of [`involution2d`], in the order height, width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvolutionSpec {
    /// Taps.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: [usize; 2],
    /// Step between taps.
    pub dilation: [usize; 2],
    /// Padding at the (start, end) of each axis.
    pub pads: [(usize, usize); 2],
    /// Groups of channels that share a kernel.
    pub groups: usize,
}

impl InvolutionSpec {
    /// Stride 1, dilation 1, no padding, one group.
    #[must_use]
    pub fn new(kernel: [usize; 2]) -> Self {
        Self { kernel, stride: [1; 2], dilation: [1; 2], pads: [(0, 0); 2], groups: 1 }
    }
}

/// Options of [`involution_layer`].
#[derive(Clone, Debug, PartialEq)]
pub struct InvolutionLayerSpec {
    /// The involution itself.
    pub inv: InvolutionSpec,
    /// What batch norm adds to the variance.
    pub eps: f64,
}

/// Involution with a given weight.
///
/// `y[n,c,i,j] = bias[c] + sum over kh, kw of
/// w[n, g(c), kh, kw, i, j] * x[n, c, i*stride - pad + kh*dilation, j*stride - pad + kw*dilation]`, `g(c) = c / (C/G)`
///
/// x `[N, C, H, W]`, w `[N, G, Kh, Kw, Ho, Wo]` or the same data as `[N, G*Kh*Kw, Ho, Wo]`, bias `[C]`,
/// y `[N, C, Ho, Wo]`. Taps in the padding are skipped.
///
/// # Errors
/// Wrong shapes, groups that do not divide C, an empty output.
pub fn involution2d<T: Real>(
    x: ArrayViewD<T>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
    spec: &InvolutionSpec,
) -> Result<ArrayD<f64>, ReferenceError> {
    let shape = out_shape(x.shape(), spec)?;
    let [_, channels, out_h, out_w] = shape;
    let bias = channel_vector(OPERATOR, "bias", bias, channels)?;
    let w = Weight::new(w, &shape, spec)?;
    let x = x.into_dimensionality::<Ix4>().map_err(|e| shape_error(OPERATOR, e.to_string()))?;
    let (_, _, height, width) = x.dim();
    let mut y = zeros(OPERATOR, &shape)?;
    y.par_chunks_mut(out_h * out_w).enumerate().for_each(|(plane_index, plane)| {
        let (n, c) = (plane_index / channels, plane_index % channels);
        let group = c / (channels / spec.groups);
        for (i, sums) in plane.chunks_mut(out_w).enumerate() {
            sums.fill(bias[c]);
            for kh in 0..spec.kernel[0] {
                let Some(row) = source(spec, 0, i, kh, height) else { continue };
                for kw in 0..spec.kernel[1] {
                    let weights = w.row(n, group, [kh, kw], i, spec.kernel);
                    for (j, sum) in sums.iter_mut().enumerate() {
                        if let Some(column) = source(spec, 1, j, kw, width) {
                            *sum += weights[j].to_f64() * x[[n, c, row, column]].to_f64();
                        }
                    }
                }
            }
        }
    });
    into_array(OPERATOR, &shape, y)
}

/// One element `index = [n, c, i, j]` of [`involution2d`].
///
/// # Errors
/// Those of [`involution2d`], and an index outside the output.
pub fn involution2d_at<T: Real>(
    x: ArrayViewD<T>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
    spec: &InvolutionSpec,
    index: &[usize],
) -> Result<f64, ReferenceError> {
    let shape = out_shape(x.shape(), spec)?;
    let bias = channel_vector(OPERATOR, "bias", bias, shape[1])?;
    let w = Weight::new(w, &shape, spec)?;
    check_index(OPERATOR, index, &shape)?;
    let x = x.into_dimensionality::<Ix4>().map_err(|e| shape_error(OPERATOR, e.to_string()))?;
    let (_, channels, height, width) = x.dim();
    let (n, c, i, j) = (index[0], index[1], index[2], index[3]);
    let group = c / (channels / spec.groups);
    let mut sum = bias[c];
    for kh in 0..spec.kernel[0] {
        for kw in 0..spec.kernel[1] {
            if let (Some(row), Some(column)) = (source(spec, 0, i, kh, height), source(spec, 1, j, kw, width)) {
                let weight = w.row(n, group, [kh, kw], i, spec.kernel)[j].to_f64();
                sum += weight * x[[n, c, row, column]].to_f64();
            }
        }
    }
    Ok(sum)
}

/// The shape `[N, C, Ho, Wo]` of [`involution2d`]'s output.
///
/// # Errors
/// Those of [`involution2d`] that concern x.
pub fn involution2d_out_shape(x_shape: &[usize], spec: &InvolutionSpec) -> Result<Vec<usize>, ReferenceError> {
    out_shape(x_shape, spec).map(Vec::from)
}

/// The involution layer: [`involution_layer_weight`], then [`involution2d`] of x with that weight.
///
/// x `[N, C, H, W]`, reduce_w `[C/r, C, 1, 1]`, bn four times `[C/r]`, span_w `[G*Kh*Kw, C/r, 1, 1]`,
/// span_b `[G*Kh*Kw]`, y `[N, C, Ho, Wo]`.
///
/// # Errors
/// Those of the operators it is made of; among them a pooled input whose extents are not those of the output, as happens
/// where the padding is not `dilation*(K-1)/2`.
pub fn involution_layer<T: Real>(
    x: ArrayViewD<T>,
    reduce_w: ArrayViewD<T>,
    bn: BatchNormParams<T>,
    span_w: ArrayViewD<T>,
    span_b: Option<ArrayViewD<T>>,
    spec: &InvolutionLayerSpec,
) -> Result<ArrayD<f64>, ReferenceError> {
    // In f64 before anything else, since the weight is made in f64 and both must have one type.
    let x64 = x.mapv(Real::to_f64);
    let weight = involution_layer_weight(x, reduce_w, bn, span_w, span_b, spec)?;
    involution2d(x64.view(), weight.view(), None, &spec.inv)
}

/// The weight `[N, G*Kh*Kw, Ho, Wo]` that [`involution_layer`] makes from its input: average pool with kernel and stride
/// `stride` (ceil mode, padding not counted) when a stride is greater than 1, 1x1 convolution to C/r channels, batch
/// norm, ReLU, 1x1 convolution to G*Kh*Kw channels.
///
/// # Errors
/// Those of the operators it is made of.
pub fn involution_layer_weight<T: Real>(
    x: ArrayViewD<T>,
    reduce_w: ArrayViewD<T>,
    bn: BatchNormParams<T>,
    span_w: ArrayViewD<T>,
    span_b: Option<ArrayViewD<T>>,
    spec: &InvolutionLayerSpec,
) -> Result<ArrayD<f64>, ReferenceError> {
    out_shape(x.shape(), &spec.inv)?;
    let double = |array: ArrayViewD<T>| array.mapv(Real::to_f64);
    let stride = spec.inv.stride;
    let pooled = if stride == [1, 1] {
        double(x)
    } else {
        avg_pool(x, &AvgPoolSpec { ceil_mode: true, count_include_pad: false, ..AvgPoolSpec::new(&stride) })?
    };
    let pointwise = ConvSpec::new(2);
    let reduced = conv(pooled.view(), double(reduce_w).view(), None, &pointwise)?;
    let [gamma, beta, mean, var] = [bn.gamma, bn.beta, bn.mean, bn.var].map(double);
    let normed = batch_norm(reduced.view(), gamma.view(), beta.view(), mean.view(), var.view(), spec.eps)?;
    let active = normed.mapv(|v| apply(ActivationKind::Relu, v));
    let span_b = span_b.map(double);
    conv(active.view(), double(span_w).view(), span_b.as_ref().map(|b| b.view()), &pointwise)
}

fn out_shape(x_shape: &[usize], spec: &InvolutionSpec) -> Result<[usize; 4], ReferenceError> {
    no_zero_extent(OPERATOR, "x", x_shape)?;
    let [batch, channels, height, width] = *x_shape else {
        return Err(shape_error(OPERATOR, format!("x must have 4 axes, got shape {x_shape:?}")));
    };
    check_positive(OPERATOR, "kernel", &spec.kernel)?;
    check_positive(OPERATOR, "stride", &spec.stride)?;
    check_positive(OPERATOR, "dilation", &spec.dilation)?;
    check_groups(OPERATOR, "groups", spec.groups, &[("C", channels)])?;
    let extent = |axis: usize, input| {
        let (stride, dilation) = (spec.stride[axis], spec.dilation[axis]);
        window_count(OPERATOR, input, spec.kernel[axis], stride, dilation, spec.pads[axis])
    };
    Ok([batch, channels, extent(0, height)?, extent(1, width)?])
}

/// The weight in either of its forms.
enum Weight<'a, T> {
    /// `[N, G, Kh, Kw, Ho, Wo]`
    Six(ArrayView6<'a, T>),
    /// `[N, G*Kh*Kw, Ho, Wo]`
    Four(ArrayView4<'a, T>),
}

impl<'a, T: Real> Weight<'a, T> {
    fn new(w: ArrayViewD<'a, T>, out_shape: &[usize; 4], spec: &InvolutionSpec) -> Result<Self, ReferenceError> {
        let ([batch, _, out_h, out_w], [kh, kw], groups) = (*out_shape, spec.kernel, spec.groups);
        let six = [batch, groups, kh, kw, out_h, out_w];
        let channels = groups.checked_mul(kh).and_then(|v| v.checked_mul(kw)).ok_or_else(|| overflow(OPERATOR))?;
        let four = [batch, channels, out_h, out_w];
        let form = if w.shape() == six {
            w.into_dimensionality::<Ix6>().map(Self::Six)
        } else if w.shape() == four {
            w.into_dimensionality::<Ix4>().map(Self::Four)
        } else {
            return Err(shape_error(OPERATOR, format!("w must have shape {six:?} or {four:?}, got {:?}", w.shape())));
        };
        form.map_err(|e| shape_error(OPERATOR, e.to_string()))
    }

    /// All of `w[n, group, kh, kw, i, ..]`.
    fn row(&self, n: usize, group: usize, [kh, kw]: [usize; 2], i: usize, kernel: [usize; 2]) -> ArrayView1<'_, T> {
        match self {
            Self::Six(w) => w.slice(s![n, group, kh, kw, i, ..]),
            Self::Four(w) => w.slice(s![n, (group * kernel[0] + kh) * kernel[1] + kw, i, ..]),
        }
    }
}

/// The tap of window `q` on this axis; `None` in the padding.
fn source(spec: &InvolutionSpec, axis: usize, q: usize, k: usize, extent: usize) -> Option<usize> {
    tap(q, spec.stride[axis], k, spec.dilation[axis], spec.pads[axis].0, extent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, IxDyn, arr1};

    #[test]
    fn both_weight_forms_by_hand() {
        // Two channels that share a kernel of 1 and j, on a row padded by one at the start.
        let spec = InvolutionSpec { pads: [(0, 0), (1, 0)], ..InvolutionSpec::new([1, 2]) };
        let x = Array::from_shape_vec(IxDyn(&[1, 2, 1, 3]), vec![1.0f32, 2.0, 3.0, 10.0, 20.0, 30.0]).unwrap();
        let four = Array::from_shape_vec(IxDyn(&[1, 2, 1, 3]), vec![1.0f32, 1.0, 1.0, 0.0, 1.0, 2.0]).unwrap();
        let six = four.clone().into_shape_with_order(IxDyn(&[1, 1, 1, 2, 1, 3])).unwrap();
        let bias = arr1(&[0.0f32, 100.0]).into_dyn();
        for w in [four, six] {
            let y = involution2d(x.view(), w.view(), Some(bias.view()), &spec).unwrap();
            assert_eq!(y.as_slice().unwrap(), [0.0, 3.0, 8.0, 100.0, 130.0, 180.0]);
            let one = involution2d_at(x.view(), w.view(), Some(bias.view()), &spec, &[0, 1, 0, 2]).unwrap();
            assert_eq!(one, 180.0);
        }
    }

    #[test]
    fn layer_by_hand() {
        // One channel, 3x3 input, stride 2: the ragged pooling windows average 4, 2, 2 and 1 pixels.
        let mut inv = InvolutionSpec::new([1, 1]);
        inv.stride = [2, 2];
        let spec = InvolutionLayerSpec { inv, eps: 0.0 };
        let x = Array::from_shape_fn(IxDyn(&[1, 1, 3, 3]), |i| (i[2] * 3 + i[3]) as f64);
        let one = ArrayD::<f64>::ones(IxDyn(&[1, 1, 1, 1]));
        let [gamma, beta, mean, var] = [3.0, -9.0, 1.0, 4.0].map(|v| arr1(&[v]).into_dyn());
        let bn = BatchNormParams { gamma: gamma.view(), beta: beta.view(), mean: mean.view(), var: var.view() };
        let span_b = arr1(&[0.5]).into_dyn();
        let y = involution_layer(x.view(), one.view(), bn, one.view(), Some(span_b.view()), &spec).unwrap();
        // Pooled 2, 3.5, 6.5, 8; normed -7.5, -5.25, -0.75, 1.5; ReLU and + 0.5 give the factors of 0, 2, 6, 8.
        assert_eq!(y.as_slice().unwrap(), [0.0, 1.0, 3.0, 16.0]);
    }

    #[test]
    fn mistakes_are_errors() {
        let good = InvolutionSpec { groups: 2, ..InvolutionSpec::new([3, 3]) };
        assert_eq!(involution2d_out_shape(&[1, 4, 5, 6], &good), Ok(vec![1, 4, 3, 4]));
        assert!(involution2d_out_shape(&[1, 3, 5, 6], &good).is_err());
        assert!(involution2d_out_shape(&[1, 4, 2, 6], &good).is_err());
        assert!(involution2d_out_shape(&[1, 4, 5], &good).is_err());
        let x = ArrayD::<f32>::zeros(IxDyn(&[1, 4, 5, 6]));
        let w = ArrayD::<f32>::zeros(IxDyn(&[1, 9, 3, 4]));
        assert!(involution2d(x.view(), w.view(), None, &good).is_err());
    }
}
