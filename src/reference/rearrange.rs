//! Operators that compute nothing and move elements.

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice};

use super::shape::{check_positive, no_zero_extent, shape_error, spec_error};
use super::{Real, ReferenceError};

/// The arrays one after the other along an axis, as `torch.cat`.
///
/// # Errors
/// No arrays, an axis that they do not have, or other extents that differ.
pub fn concat<T: Real>(arrays: &[ArrayViewD<T>], axis: usize) -> Result<ArrayD<f64>, ReferenceError> {
    if arrays.first().is_none_or(|array| axis >= array.ndim()) {
        return Err(spec_error("concat", format!("axis {axis} does not exist")));
    }
    let wide: Vec<ArrayD<f64>> = arrays.iter().map(|array| array.mapv(Real::to_f64)).collect();
    let views: Vec<_> = wide.iter().map(|array| array.view()).collect();
    let joined = ndarray::concatenate(Axis(axis), &views).map_err(|e| shape_error("concat", e.to_string()))?;
    Ok(joined.as_standard_layout().into_owned())
}

/// `length` indices of an axis from `start` on, as `torch.narrow`.
///
/// # Errors
/// An axis that x does not have, or a range that does not lie in it or is empty.
pub fn narrow<T: Real>(
    x: ArrayViewD<T>,
    axis: usize,
    start: usize,
    length: usize,
) -> Result<ArrayD<f64>, ReferenceError> {
    let end = start.checked_add(length);
    let Some(end) = end.filter(|&end| axis < x.ndim() && end <= x.shape()[axis] && length > 0) else {
        return Err(spec_error("narrow", format!("{length} from {start} on along axis {axis} of {:?}", x.shape())));
    };
    Ok(x.slice_axis(Axis(axis), Slice::from(start..end)).mapv(Real::to_f64))
}

/// `[N, C*r*r, H, W]` to `[N, C, H*r, W*r]`, as `torch.nn.PixelShuffle`: seen as `[N, C, r, r, H, W]`, axes put in the order
/// `[N, C, H, r, W, r]`.
///
/// # Errors
/// A rank other than 4, an extent of 0, and channels that the factor's square does not divide.
pub fn pixel_shuffle<T: Real>(x: ArrayViewD<T>, factor: usize) -> Result<ArrayD<f64>, ReferenceError> {
    let operator = "pixel_shuffle";
    no_zero_extent(operator, "x", x.shape())?;
    check_positive(operator, "factor", &[factor])?;
    let &[n, c, h, w] = x.shape() else {
        return Err(shape_error(operator, format!("x must have 4 axes, got shape {:?}", x.shape())));
    };
    let channels = factor.checked_mul(factor).filter(|square| c.is_multiple_of(*square)).map(|square| c / square);
    let Some(channels) = channels else {
        return Err(spec_error(operator, format!("{c} channels are not divisible by {factor} squared")));
    };
    let wide: ArrayD<f64> = x.mapv(Real::to_f64);
    let reshaped = |array: ArrayD<f64>, shape: &[usize]| {
        array.to_shape(IxDyn(shape)).map(|view| view.to_owned()).map_err(|e| shape_error(operator, e.to_string()))
    };
    let six = reshaped(wide, &[n, channels, factor, factor, h, w])?;
    let ordered = six.permuted_axes(IxDyn(&[0, 1, 4, 2, 5, 3]));
    reshaped(ordered, &[n, channels, h * factor, w * factor])
}

/// Each element of `[N, C, H, W]` as a block of `factors`, as `torch.nn.Upsample(mode="nearest")` with whole factors.
///
/// # Errors
/// A rank other than 4, an extent or a factor of 0.
pub fn upsample_nearest<T: Real>(x: ArrayViewD<T>, factors: [usize; 2]) -> Result<ArrayD<f64>, ReferenceError> {
    let operator = "upsample_nearest";
    no_zero_extent(operator, "x", x.shape())?;
    check_positive(operator, "factors", &factors)?;
    if x.ndim() != 4 {
        return Err(shape_error(operator, format!("x must have 4 axes, got shape {:?}", x.shape())));
    }
    let mut y = x.mapv(Real::to_f64);
    for (axis, factor) in [(Axis(2), factors[0]), (Axis(3), factors[1])] {
        let indices: Vec<usize> = (0..y.len_of(axis)).flat_map(|i| std::iter::repeat_n(i, factor)).collect();
        y = y.select(axis, &indices);
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, arr2};

    #[test]
    fn by_hand() {
        let x = Array::from_iter((0..4).map(|v| v as f32)).into_shape_with_order(IxDyn(&[1, 4, 1, 1])).unwrap();
        let square = arr2(&[[0.0, 1.0], [2.0, 3.0]]).into_shape_with_order(IxDyn(&[1, 1, 2, 2])).unwrap();
        assert_eq!(pixel_shuffle(x.view(), 2), Ok(square.clone()));
        let wide = arr2(&[[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]]);
        let wide = wide.into_shape_with_order(IxDyn(&[1, 1, 2, 4])).unwrap();
        assert_eq!(upsample_nearest(square.view(), [1, 2]), Ok(wide.clone()));
        assert_eq!(narrow(wide.view(), 3, 0, 2).unwrap().as_slice(), Some(&[0.0, 0.0, 2.0, 2.0][..]));
        let twice = concat(&[square.view(), square.view()], 3).unwrap();
        assert_eq!(twice.as_slice(), Some(&[0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 3.0][..]));
        assert!(pixel_shuffle(wide.view(), 2).is_err() && narrow(wide.view(), 3, 3, 2).is_err());
        assert!(concat(&[square.view(), wide.view()], 2).is_err() && concat::<f64>(&[], 0).is_err());
    }
}
