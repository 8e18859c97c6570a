//! Softmax along one axis.

use ndarray::{ArrayD, ArrayViewD, Axis};

use super::shape::{no_zero_extent, spec_error};
use super::{Real, ReferenceError};

const OPERATOR: &str = "softmax";

/// `y[.., i, ..] = exp(x[.., i, ..]) / sum over j of exp(x[.., j, ..])` along `axis`, as `torch.nn.functional.softmax`.
///
/// The greatest value of each line is subtracted first, which changes nothing but the overflow. A NaN or a plus infinity
/// makes its whole line NaN, and so does a line of minus infinities; all as in PyTorch.
///
/// # Errors
/// An axis that x does not have, or an extent of 0.
pub fn softmax<T: Real>(x: ArrayViewD<T>, axis: usize) -> Result<ArrayD<f64>, ReferenceError> {
    no_zero_extent(OPERATOR, "x", x.shape())?;
    if axis >= x.ndim() {
        return Err(spec_error(OPERATOR, format!("axis {axis} does not exist in shape {:?}", x.shape())));
    }
    let mut y = x.mapv(Real::to_f64);
    for mut line in y.lanes_mut(Axis(axis)) {
        let greatest = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        line.mapv_inplace(|v| (v - greatest).exp());
        let total = line.sum();
        line.mapv_inplace(|v| v / total);
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn by_hand_along_both_axes() {
        let (one, three) = (0.0f64, 3.0f64.ln());
        let x = arr2(&[[one, three], [one, one]]).into_dyn();
        let close = |y: ArrayD<f64>, expected: [f64; 4]| {
            y.iter().zip(expected).for_each(|(y, e)| assert!((y - e).abs() < 1e-12, "{y} {e}"));
        };
        close(softmax(x.view(), 1).unwrap(), [0.25, 0.75, 0.5, 0.5]);
        close(softmax(x.view(), 0).unwrap(), [0.5, 0.75, 0.5, 0.25]);
        // Far above where exp overflows; what differs is the rounding of 5000 + ln 3.
        close(softmax((&x + 5000.0).view(), 1).unwrap(), [0.25, 0.75, 0.5, 0.5]);
        assert!(softmax(x.view(), 2).is_err());
    }

    #[test]
    fn what_is_not_finite_stays_in_its_line() {
        let x = arr2(&[[f32::NAN, 1.0], [f32::INFINITY, 1.0], [f32::NEG_INFINITY, 1.0]]).into_dyn();
        let y = softmax(x.view(), 1).unwrap();
        assert!(y.iter().take(4).all(|v| v.is_nan()));
        assert_eq!((y[[2, 0]], y[[2, 1]]), (0.0, 1.0));
    }
}
