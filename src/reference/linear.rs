//! The fully connected layer.

use ndarray::{ArrayD, ArrayViewD, Ix2};
use rayon::prelude::*;

use super::shape::{channel_vector, into_array, no_zero_extent, shape_error, zeros};
use super::{Real, ReferenceError};

const OPERATOR: &str = "linear";

/// `y[.., o] = bias[o] + sum over i of x[.., i] * w[o, i]`, as `torch.nn.functional.linear`.
///
/// x `[.., in]` with any leading axes, w `[out, in]`, bias `[out]`, y `[.., out]`.
///
/// # Errors
/// Wrong shapes.
pub fn linear<T: Real>(
    x: ArrayViewD<T>,
    w: ArrayViewD<T>,
    bias: Option<ArrayViewD<T>>,
) -> Result<ArrayD<f64>, ReferenceError> {
    no_zero_extent(OPERATOR, "x", x.shape())?;
    no_zero_extent(OPERATOR, "w", w.shape())?;
    let &[outputs, inputs] = w.shape() else {
        return Err(shape_error(OPERATOR, format!("w must have 2 axes, got shape {:?}", w.shape())));
    };
    let Some((&last, leading)) = x.shape().split_last() else {
        return Err(shape_error(OPERATOR, "x must have at least 1 axis"));
    };
    if last != inputs {
        return Err(shape_error(OPERATOR, format!("x must have {inputs} features last, got shape {:?}", x.shape())));
    }
    let out_shape = [leading, &[outputs]].concat();
    let bias = channel_vector(OPERATOR, "bias", bias, outputs)?;
    let w = w.into_dimensionality::<Ix2>().map_err(|e| shape_error(OPERATOR, e.to_string()))?;
    let x: Vec<f64> = x.iter().map(|v| v.to_f64()).collect();
    let mut y = zeros(OPERATOR, &out_shape)?;
    y.par_iter_mut().enumerate().for_each(|(i, y)| {
        let (row, o) = (i / outputs, i % outputs);
        *y = bias[o];
        for (x, w) in x[row * inputs..][..inputs].iter().zip(w.row(o)) {
            *y += x * w.to_f64();
        }
    });
    into_array(OPERATOR, &out_shape, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{IxDyn, arr1, arr2, arr3};

    #[test]
    fn by_hand_with_leading_axes() {
        let x = arr3(&[[[1.0f32, 2.0]], [[3.0, 4.0]]]).into_dyn();
        let w = arr2(&[[1.0f32, 10.0], [0.0, 1.0], [1.0, 0.0]]).into_dyn();
        let bias = arr1(&[0.0f32, 100.0, 0.0]).into_dyn();
        let y = linear(x.view(), w.view(), Some(bias.view())).unwrap();
        assert_eq!(y, arr3(&[[[21.0, 102.0, 1.0]], [[43.0, 104.0, 3.0]]]).into_dyn());
    }

    #[test]
    fn mistakes_are_errors() {
        let w = ArrayD::<f32>::zeros(IxDyn(&[3, 2]));
        for shape in [&[][..], &[3], &[0, 2]] {
            assert!(linear(ArrayD::<f32>::zeros(IxDyn(shape)).view(), w.view(), None).is_err(), "{shape:?}");
        }
        let x = ArrayD::<f32>::zeros(IxDyn(&[2]));
        assert_eq!(linear(x.view(), w.view(), None).map(|y| y.shape().to_vec()), Ok(vec![3]));
        assert!(linear(x.view(), w.view(), Some(x.view())).is_err());
    }
}
