//! Shape checks and index helpers that several reference operators need.
//!
//! Arrays of rank 1 and 2 are treated as rank 3 with leading spatial axes of extent 1 (kernel 1, stride 1, no padding),
//! so that each operator has one set of loops.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::{ArrayD, ArrayView5, ArrayViewD, Axis, Ix5, IxDyn};

use super::{Real, ReferenceError};

pub(super) fn shape_error(operator: &'static str, message: impl Into<String>) -> ReferenceError {
    ReferenceError::Shape { operator, message: message.into() }
}

pub(super) fn spec_error(operator: &'static str, message: impl Into<String>) -> ReferenceError {
    ReferenceError::Spec { operator, message: message.into() }
}

pub(super) fn overflow(operator: &'static str) -> ReferenceError {
    ReferenceError::TooLarge { operator, message: "an extent overflows".into() }
}

/// The number of spatial axes of `[N, C, ...]`, 1 to 3; every extent must be at least 1.
pub(super) fn spatial_rank(operator: &'static str, argument: &str, shape: &[usize]) -> Result<usize, ReferenceError> {
    if !(3..=5).contains(&shape.len()) {
        return Err(shape_error(operator, format!("{argument} must have 3 to 5 axes, got shape {shape:?}")));
    }
    no_zero_extent(operator, argument, shape)?;
    Ok(shape.len() - 2)
}

pub(super) fn no_zero_extent(operator: &'static str, argument: &str, shape: &[usize]) -> Result<(), ReferenceError> {
    if shape.contains(&0) {
        return Err(shape_error(operator, format!("{argument} has an extent of 0: shape {shape:?}")));
    }
    Ok(())
}

pub(super) fn expect_shape(
    operator: &'static str,
    argument: &str,
    shape: &[usize],
    expected: &[usize],
) -> Result<(), ReferenceError> {
    if shape != expected {
        return Err(shape_error(operator, format!("{argument} must have shape {expected:?}, got {shape:?}")));
    }
    Ok(())
}

/// A bias (or another per-channel vector) as `f64`; zeros where there is none.
pub(super) fn channel_vector<T: Real>(
    operator: &'static str,
    argument: &str,
    vector: Option<ArrayViewD<T>>,
    channels: usize,
) -> Result<Vec<f64>, ReferenceError> {
    let Some(vector) = vector else { return Ok(vec![0.0; channels]) };
    expect_shape(operator, argument, vector.shape(), &[channels])?;
    Ok(vector.iter().map(|v| v.to_f64()).collect())
}

/// A group count must be at least 1 and divide each of the channel counts.
pub(super) fn check_groups(
    operator: &'static str,
    option: &str,
    groups: usize,
    channels: &[(&str, usize)],
) -> Result<(), ReferenceError> {
    for (name, count) in channels {
        if groups == 0 || count % groups != 0 {
            return Err(spec_error(operator, format!("{name} = {count} is not divisible by {option} = {groups}")));
        }
    }
    Ok(())
}

/// A per-axis option must have one value an axis.
pub(super) fn check_axes(operator: &'static str, option: &str, len: usize, rank: usize) -> Result<(), ReferenceError> {
    if len != rank {
        return Err(spec_error(operator, format!("{option} must have {rank} values, got {len}")));
    }
    Ok(())
}

/// A per-axis option must have no 0 (strides, dilations, kernels).
pub(super) fn check_positive(operator: &'static str, option: &str, values: &[usize]) -> Result<(), ReferenceError> {
    if values.contains(&0) {
        return Err(spec_error(operator, format!("{option} must be at least 1, got {values:?}")));
    }
    Ok(())
}

pub(super) fn check_index(operator: &'static str, index: &[usize], shape: &[usize]) -> Result<(), ReferenceError> {
    let inside = index.len() == shape.len() && index.iter().zip(shape).all(|(i, extent)| i < extent);
    if !inside {
        return Err(ReferenceError::Index { operator, index: index.to_vec(), shape: shape.to_vec() });
    }
    Ok(())
}

/// One to three values as three, `fill` in front.
pub(super) fn three<V: Copy>(values: &[V], fill: V) -> [V; 3] {
    let mut out = [fill; 3];
    for (slot, value) in out.iter_mut().rev().zip(values.iter().rev()) {
        *slot = *value;
    }
    out
}

/// `floor((input + pad_start + pad_end - dilation*(kernel-1) - 1) / stride) + 1`; every argument but the pads is >= 1.
pub(super) fn window_count(
    operator: &'static str,
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pads: (usize, usize),
) -> Result<usize, ReferenceError> {
    let padded = sum(operator, &[input, pads.0, pads.1])?;
    let reach = kernel_reach(operator, kernel, dilation)?;
    if padded < reach {
        return Err(ReferenceError::EmptyOutput {
            operator,
            message: format!("the kernel reaches over {reach} positions, the padded input has {padded}"),
        });
    }
    Ok((padded - reach) / stride + 1)
}

/// `dilation*(kernel-1) + 1`: the positions from the first tap to the last.
pub(super) fn kernel_reach(operator: &'static str, kernel: usize, dilation: usize) -> Result<usize, ReferenceError> {
    let reach = dilation.checked_mul(kernel - 1).ok_or_else(|| overflow(operator))?;
    sum(operator, &[reach, 1])
}

/// A sum that still fits an `isize`, so that later index arithmetic cannot overflow.
pub(super) fn sum(operator: &'static str, terms: &[usize]) -> Result<usize, ReferenceError> {
    let total = terms.iter().try_fold(0usize, |total, term| total.checked_add(*term));
    total.filter(|total| isize::try_from(*total).is_ok()).ok_or_else(|| overflow(operator))
}

/// An empty vector with room for an array of this shape, or an error where it cannot be held.
pub(super) fn reserve<V>(operator: &'static str, shape: &[usize]) -> Result<(Vec<V>, usize), ReferenceError> {
    let too_large = || ReferenceError::TooLarge {
        operator,
        message: format!("an array of shape {shape:?} does not fit in memory"),
    };
    let count = shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent)).ok_or_else(too_large)?;
    let mut data = Vec::new();
    data.try_reserve_exact(count).map_err(|_| too_large())?;
    Ok((data, count))
}

/// Zeros for an output of this shape.
pub(super) fn zeros(operator: &'static str, shape: &[usize]) -> Result<Vec<f64>, ReferenceError> {
    let (mut data, count) = reserve(operator, shape)?;
    data.resize(count, 0.0);
    Ok(data)
}

pub(super) fn into_array(
    operator: &'static str,
    shape: &[usize],
    data: Vec<f64>,
) -> Result<ArrayD<f64>, ReferenceError> {
    ArrayD::from_shape_vec(IxDyn(shape), data).map_err(|e| shape_error(operator, e.to_string()))
}

/// An array of rank 1 to 3 seen as `[N, C, D, H, W]`; no copy.
pub(super) fn volume<'a, T>(
    operator: &'static str,
    mut array: ArrayViewD<'a, T>,
) -> Result<ArrayView5<'a, T>, ReferenceError> {
    while array.ndim() < 5 {
        let first_spatial = Axis(2.min(array.ndim()));
        array = array.insert_axis(first_spatial);
    }
    array.into_dimensionality::<Ix5>().map_err(|e| shape_error(operator, e.to_string()))
}

/// `[N, C, D, H, W]` in standard layout, so that a row along W is a slice.
pub(super) struct Rows<'a, T: Real> {
    data: Cow<'a, [T]>,
    shape: [usize; 5],
}

impl<'a, T: Real> Rows<'a, T> {
    pub(super) fn new(array: ArrayView5<'a, T>) -> Self {
        let (n, c, d, h, w) = array.dim();
        let data = match array.to_slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(array.iter().copied().collect()),
        };
        Self { data, shape: [n, c, d, h, w] }
    }

    pub(super) fn row(&self, n: usize, c: usize, z: usize, y: usize) -> &[T] {
        let [_, channels, depth, height, width] = self.shape;
        let start = (((n * channels + c) * depth + z) * height + y) * width;
        &self.data[start..start + width]
    }
}

/// Where tap `k` of window `q` lies in the unpadded input: `q*stride + k*dilation - pad`, or `None` in the padding.
pub(super) fn tap(
    q: usize,
    stride: usize,
    k: usize,
    dilation: usize,
    pad_start: usize,
    extent: usize,
) -> Option<usize> {
    (q * stride + k * dilation).checked_sub(pad_start).filter(|position| *position < extent)
}

/// All `q` in `0..count` with `0 <= q*stride + shift - pad_start < extent`: a range, since the position grows with `q`.
pub(super) fn reaching(count: usize, stride: usize, shift: usize, pad_start: usize, extent: usize) -> Range<usize> {
    let first = pad_start.saturating_sub(shift).div_ceil(stride);
    let end = (extent + pad_start).saturating_sub(shift).div_ceil(stride).min(count);
    first.min(end)..end
}

/// `sums[q] += factor * values[first + q*stride]` for all of `sums`.
pub(super) fn add_row<T: Real>(sums: &mut [f64], factor: f64, values: &[T], first: usize, stride: usize) {
    if stride == 1 {
        // The same loop as below; with slices of equal length the compiler vectorises it.
        let values = &values[first..first + sums.len()];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += factor * value.to_f64();
        }
    } else {
        for (q, sum) in sums.iter_mut().enumerate() {
            *sum += factor * values[first + q * stride].to_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaching_is_the_set_of_taps_inside() {
        for case in 0..7 * 3 * 10 * 13 * 6 {
            let (count, stride, shift) = (1 + case % 7, 1 + case / 7 % 3, case / 21 % 10);
            let (pad, extent) = (case / 210 % 13, 1 + case / 2730);
            let inside = |q: &usize| tap(*q, stride, 1, shift, pad, extent).is_some();
            let expected: Vec<usize> = (0..count).filter(inside).collect();
            let range = reaching(count, stride, shift, pad, extent);
            assert_eq!(range.collect::<Vec<_>>(), expected, "{count} {stride} {shift} {pad} {extent}");
        }
    }

    #[test]
    fn window_count_of_known_layers() {
        // ResNet's stem, a same-padded 3x3 and a kernel as large as the input.
        assert_eq!(window_count("conv", 224, 7, 2, 1, (3, 3)), Ok(112));
        assert_eq!(window_count("conv", 56, 3, 1, 1, (1, 1)), Ok(56));
        assert_eq!(window_count("conv", 5, 5, 1, 1, (0, 0)), Ok(1));
        assert!(matches!(window_count("conv", 4, 5, 1, 1, (0, 0)), Err(ReferenceError::EmptyOutput { .. })));
        assert!(matches!(window_count("conv", 4, 5, 1, usize::MAX, (0, 0)), Err(ReferenceError::TooLarge { .. })));
        assert!(matches!(window_count("conv", 4, 1, 1, 1, (usize::MAX, 0)), Err(ReferenceError::TooLarge { .. })));
    }
}
