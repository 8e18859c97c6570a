//! Folding of batch normalisation into the convolution before it, on the host.

use ndarray::{Array1, ArrayD, ArrayViewD, Axis};

use crate::error::{Error, Result};

const OP: &str = "fold_batch_norm";

/// Batch normalisation with given statistics, as at inference (Ioffe and Szegedy 2015, PyTorch's `BatchNorm2d.eval()`):
///
/// `y[n,c,..] = (x[n,c,..] - mean[c]) / sqrt(var[c] + eps) * gamma[c] + beta[c]`
///
/// Behind a convolution it is a change of weights, so there is no operator: fold it once with [`BatchNorm::fold`].
///
/// # Example
/// ```
/// use wgconv::{BatchNorm, ndarray::{Array1, Array4}};
/// let (ones, zeros) = (Array1::<f32>::ones(8).into_dyn(), Array1::<f32>::zeros(8).into_dyn());
/// let norm = BatchNorm { gamma: ones.view(), beta: zeros.view(), mean: zeros.view(), var: ones.view(), eps: 1e-5 };
/// let weight = Array4::<f32>::ones((8, 4, 3, 3)).into_dyn();
/// let (weight, bias) = norm.fold(weight.view(), None)?;
/// assert_eq!((weight.shape(), bias.shape()), (&[8, 4, 3, 3][..], &[8][..]));
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm<'a> {
    /// Scale `[C]`, PyTorch's `weight`.
    pub gamma: ArrayViewD<'a, f32>,
    /// Shift `[C]`, PyTorch's `bias`.
    pub beta: ArrayViewD<'a, f32>,
    /// Running mean `[C]`.
    pub mean: ArrayViewD<'a, f32>,
    /// Running variance `[C]`.
    pub var: ArrayViewD<'a, f32>,
    /// Added to the variance; PyTorch's default is `1e-5`.
    pub eps: f64,
}

impl BatchNorm<'_> {
    /// The weight and bias of a convolution (or linear layer) that has this batch norm behind it built in:
    /// `w'[o,..] = w[o,..] * s[o]` and `b'[o] = (b[o] - mean[o]) * s[o] + beta[o]` with `s = gamma / sqrt(var + eps)`.
    ///
    /// Weight `[C_out, ...]`, bias `[C_out]`. Computed in f64 and rounded once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a weight without axes or with an empty one, for vectors that are not `[C_out]`, and where
    /// `var + eps` is not positive.
    pub fn fold(
        &self,
        weight: ArrayViewD<'_, f32>,
        bias: Option<ArrayViewD<'_, f32>>,
    ) -> Result<(ArrayD<f32>, ArrayD<f32>)> {
        check_weight(&weight, 1, "[C_out, ...]")?;
        let channels = weight.shape()[0];
        let (scale, bias) = self.scale_and_bias(channels, bias)?;
        let mut folded = weight.to_owned();
        for (mut rows, &scale) in folded.axis_iter_mut(Axis(0)).zip(&scale) {
            rows.mapv_inplace(|w| (f64::from(w) * scale) as f32);
        }
        Ok((folded, bias))
    }

    /// The same for a transposed convolution, whose output channels lie in axis 1: weight `[C_in, C_out/groups, ...]`, where
    /// output channel `g*C_out/groups + o` is entry `o` of the input channels of group `g`.
    ///
    /// # Errors
    /// As [`BatchNorm::fold`], and where `groups` does not divide the input channels.
    pub fn fold_transposed(
        &self,
        weight: ArrayViewD<'_, f32>,
        bias: Option<ArrayViewD<'_, f32>>,
        groups: usize,
    ) -> Result<(ArrayD<f32>, ArrayD<f32>)> {
        check_weight(&weight, 2, "[C_in, C_out/groups, ...]")?;
        let (inputs, og) = (weight.shape()[0], weight.shape()[1]);
        if groups == 0 || inputs % groups != 0 {
            return Err(Error::invalid(OP, "groups", format!("a divisor of the {inputs} input channels"), groups));
        }
        let (scale, bias) = self.scale_and_bias(og * groups, bias)?;
        let mut folded = weight.to_owned();
        for (c, mut outputs) in folded.axis_iter_mut(Axis(0)).enumerate() {
            let group = c / (inputs / groups);
            for (mut taps, &scale) in outputs.axis_iter_mut(Axis(0)).zip(&scale[group * og..]) {
                taps.mapv_inplace(|w| (f64::from(w) * scale) as f32);
            }
        }
        Ok((folded, bias))
    }

    fn scale_and_bias(&self, channels: usize, bias: Option<ArrayViewD<'_, f32>>) -> Result<(Vec<f64>, ArrayD<f32>)> {
        let given = [("gamma", &self.gamma), ("beta", &self.beta), ("mean", &self.mean), ("var", &self.var)];
        for (argument, vector) in given.into_iter().chain(bias.iter().map(|bias| ("bias", bias))) {
            if vector.shape() != [channels] {
                return Err(Error::invalid(
                    OP,
                    argument,
                    format!("shape [{channels}]"),
                    format!("{:?}", vector.shape()),
                ));
            }
        }
        let (mut scale, mut folded) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
        for c in 0..channels {
            let variance = f64::from(self.var[c]) + self.eps;
            // NaN is no variance either.
            if variance.is_nan() || variance <= 0.0 {
                return Err(Error::invalid(OP, "var", "var + eps above 0", format!("{variance} for channel {c}")));
            }
            let s = f64::from(self.gamma[c]) / variance.sqrt();
            let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[c]));
            scale.push(s);
            folded.push(((bias - f64::from(self.mean[c])) * s + f64::from(self.beta[c])) as f32);
        }
        Ok((scale, Array1::from_vec(folded).into_dyn()))
    }
}

fn check_weight(weight: &ArrayViewD<'_, f32>, least_axes: usize, layout: &str) -> Result<()> {
    if weight.ndim() < least_axes || weight.shape().contains(&0) {
        let got = format!("{:?}", weight.shape());
        return Err(Error::invalid(OP, "weight", format!("{layout}, none of them empty"), got));
    }
    Ok(())
}

/// [`BatchNorm::fold`] as a function: the weight and bias of a convolution with the batch norm behind it built in.
///
/// # Errors
/// As [`BatchNorm::fold`].
pub fn fold_batch_norm(
    weight: ArrayViewD<'_, f32>,
    bias: Option<ArrayViewD<'_, f32>>,
    gamma: ArrayViewD<'_, f32>,
    beta: ArrayViewD<'_, f32>,
    mean: ArrayViewD<'_, f32>,
    var: ArrayViewD<'_, f32>,
    eps: f64,
) -> Result<(ArrayD<f32>, ArrayD<f32>)> {
    BatchNorm { gamma, beta, mean, var, eps }.fold(weight, bias)
}
