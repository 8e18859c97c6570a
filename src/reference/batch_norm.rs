//! Batch normalisation with given statistics, as at inference.

use ndarray::{ArrayD, ArrayViewD, Axis};

use super::shape::{channel_vector, no_zero_extent, shape_error};
use super::{Real, ReferenceError};

const OPERATOR: &str = "batch_norm";

/// The four vectors `[C]` of a batch norm.
#[derive(Clone, Debug)]
pub struct BatchNormParams<'a, T> {
    /// Scale, PyTorch's `weight`.
    pub gamma: ArrayViewD<'a, T>,
    /// Shift, PyTorch's `bias`.
    pub beta: ArrayViewD<'a, T>,
    /// Running mean.
    pub mean: ArrayViewD<'a, T>,
    /// Running variance.
    pub var: ArrayViewD<'a, T>,
}

/// `y[n,c,..] = (x[n,c,..] - mean[c]) / sqrt(var[c] + eps) * gamma[c] + beta[c]`, as `torch.nn.functional.batch_norm`
/// with `training=False` (Ioffe and Szegedy 2015).
///
/// x `[N, C, ...]` with any number of further axes, the four vectors `[C]`.
///
/// # Errors
/// Wrong shapes.
pub fn batch_norm<T: Real>(
    x: ArrayViewD<T>,
    gamma: ArrayViewD<T>,
    beta: ArrayViewD<T>,
    mean: ArrayViewD<T>,
    var: ArrayViewD<T>,
    eps: f64,
) -> Result<ArrayD<f64>, ReferenceError> {
    no_zero_extent(OPERATOR, "x", x.shape())?;
    if x.ndim() < 2 {
        return Err(shape_error(OPERATOR, format!("x must have at least 2 axes, got shape {:?}", x.shape())));
    }
    let channels = x.shape()[1];
    let gamma = channel_vector(OPERATOR, "gamma", Some(gamma), channels)?;
    let beta = channel_vector(OPERATOR, "beta", Some(beta), channels)?;
    let mean = channel_vector(OPERATOR, "mean", Some(mean), channels)?;
    let var = channel_vector(OPERATOR, "var", Some(var), channels)?;
    let mut y = x.mapv(Real::to_f64);
    for (c, mut channel) in y.axis_iter_mut(Axis(1)).enumerate() {
        let deviation = (var[c] + eps).sqrt();
        channel.mapv_inplace(|v| (v - mean[c]) / deviation * gamma[c] + beta[c]);
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr1, arr2};

    #[test]
    fn by_hand() {
        let x = arr2(&[[1.0f32, 10.0], [3.0, 20.0]]).into_dyn();
        let vector = |a, b| arr1(&[a, b]).into_dyn();
        let (gamma, beta) = (vector(1.0f32, 2.0), vector(0.0f32, 100.0));
        let (mean, var) = (vector(2.0f32, 10.0), vector(3.0f32, 24.0));
        let y = batch_norm(x.view(), gamma.view(), beta.view(), mean.view(), var.view(), 1.0).unwrap();
        assert_eq!(y, arr2(&[[-0.5, 100.0], [0.5, 104.0]]).into_dyn());
        let short = arr1(&[1.0f32]).into_dyn();
        assert!(batch_norm(x.view(), short.view(), beta.view(), mean.view(), var.view(), 1.0).is_err());
    }
}
