//! Convolution, batch norm and activation as one operator: the layer that all blocks are made of.

use ndarray::{ArrayD, ArrayViewD};

use super::{Parameters, quotient};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::{Conv, Conv2d};
use crate::ops::options::Padding;
use crate::tensor::Tensor;

/// PyTorch's default for batch norms.
const EPS: f64 = 1e-5;

/// A convolution with what stands behind it built in: its batch norm (Ioffe and Szegedy 2015) folded into weight and bias, residual and
/// activation in its epilogue.
///
/// ```text
/// [N, C_in, ...] -> conv -> batch norm -> (+ residual) -> activation -> [N, C_out, ...]
/// ```
///
/// # Example
/// ```no_run
/// use wgconv::blocks::{ConvNorm, Seeded};
/// use wgconv::{Activation, Conv2d, Gpu, Tensor};
/// let gpu = Gpu::new_blocking()?;
/// let options = Conv2d::new().stride(2).padding(3).activation(Activation::Relu);
/// let stem = ConvNorm::load(&gpu, &Seeded(1), ("conv1", "bn1"), &[64, 3, 7, 7], options)?;
/// assert_eq!(stem.forward(&Tensor::zeros(&gpu, &[1, 3, 224, 224])?)?.shape(), [1, 64, 112, 112]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ConvNorm<const R: usize> {
    conv: Conv<R>,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl<const R: usize> ConvNorm<R> {
    /// From arrays: weight `[C_out, C_in/groups, kernel...]`, bias `[C_out]`. Whether they fit is checked with the first input.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn new(
        gpu: &Gpu,
        conv: Conv<R>,
        weight: ArrayViewD<'_, f32>,
        bias: Option<ArrayViewD<'_, f32>>,
    ) -> Result<Self> {
        // Only this crate can write the weight, so its packed copy is made with the first call and kept.
        let bias = bias.map(|bias| Tensor::from_array(gpu, &bias)).transpose()?;
        Ok(Self { conv, weight: Tensor::from_array(gpu, &weight)?, bias })
    }

    /// The convolution `{conv}.weight` without bias and the batch norm `{norm}.weight`, `.bias`, `.running_mean`, `.running_var` behind
    /// it, of PyTorch's epsilon `1e-5`; the weight has this shape.
    ///
    /// # Errors
    /// Errors of the parameters, for a variance that is not positive, and of the device.
    pub fn load(
        gpu: &Gpu,
        params: &dyn Parameters,
        (conv, norm): (&str, &str),
        shape: &[usize],
        options: Conv<R>,
    ) -> Result<Self> {
        Loader::new(gpu, params, "").conv(conv, norm, shape, options)
    }

    /// The convolution `{name}.weight` of this shape and its `{name}.bias`, without batch norm.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_biased(
        gpu: &Gpu,
        params: &dyn Parameters,
        name: &str,
        shape: &[usize],
        options: Conv<R>,
    ) -> Result<Self> {
        Loader::new(gpu, params, "").biased(name, shape, options)
    }

    /// The same layer padded otherwise.
    pub(super) fn padded(&self, padding: Padding<R>) -> Self {
        Self { conv: self.conv.clone().padding(padding), ..self.clone() }
    }

    /// Records the layer.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(x, &self.weight, self.bias.as_ref())
    }

    /// The same with a residual of the output's shape, added before the activation.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn forward_with_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.conv.clone().residual(residual).forward(x, &self.weight, self.bias.as_ref())
    }
}

/// AlexNet's layers of two groups (Krizhevsky et al. 2012): each half of the channels stayed on one of two GPUs, with bias and ReLU.
///
/// ```text
/// [N, C_in, H, W] -> two halves, k x k each, padded to the same extents -> [N, C_out, H, W]
/// ```
///
/// The second layer is `two_groups(gpu, params, "conv2", [256, 96], 5)`.
///
/// # Errors
/// Odd channels, errors of the parameters and of the device.
pub fn two_groups(
    gpu: &Gpu,
    params: &dyn Parameters,
    name: &str,
    [c_out, c_in]: [usize; 2],
    kernel: usize,
) -> Result<ConvNorm<2>> {
    let half = quotient("two_groups", "groups", c_in, 2)?;
    let options = Conv2d::new().groups(2).padding(super::same(kernel, 1)).activation(Activation::Relu);
    ConvNorm::load_biased(gpu, params, name, &[c_out, half, kernel, kernel], options)
}

/// Loads the layers of a block: parameters under its prefix.
pub(crate) struct Loader<'a> {
    pub gpu: &'a Gpu,
    params: &'a dyn Parameters,
    prefix: &'a str,
    pub eps: f64,
}

impl<'a> Loader<'a> {
    pub fn new(gpu: &'a Gpu, params: &'a dyn Parameters, prefix: &'a str) -> Self {
        Self { gpu, params, prefix, eps: EPS }
    }

    pub fn get(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        self.params.get(&self.name(name), shape)
    }

    /// The name under the prefix.
    pub fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.into() } else { format!("{}.{name}", self.prefix) }
    }

    /// Scale, shift, mean and variance of a batch norm.
    pub fn norm(&self, name: &str, channels: usize) -> Result<[ArrayD<f32>; 4]> {
        let vector = |part: &str| self.get(&format!("{name}.{part}"), &[channels]);
        Ok([vector("weight")?, vector("bias")?, vector("running_mean")?, vector("running_var")?])
    }

    /// Weight and bias with the batch norm behind them folded in.
    pub fn folded(&self, weight: &ArrayD<f32>, norm: &str) -> Result<(ArrayD<f32>, ArrayD<f32>)> {
        let parts = self.norm(norm, weight.shape().first().copied().unwrap_or_default())?;
        view(&parts, self.eps).fold(weight.view(), None)
    }

    pub fn conv<const R: usize>(
        &self,
        conv: &str,
        norm: &str,
        shape: &[usize],
        options: Conv<R>,
    ) -> Result<ConvNorm<R>> {
        let (weight, bias) = self.folded(&self.get(&format!("{conv}.weight"), shape)?, norm)?;
        ConvNorm::new(self.gpu, options, weight.view(), Some(bias.view()))
    }

    pub fn biased<const R: usize>(&self, name: &str, shape: &[usize], options: Conv<R>) -> Result<ConvNorm<R>> {
        let bias = self.get(&format!("{name}.bias"), shape.get(..1).unwrap_or(shape))?;
        let weight = self.get(&format!("{name}.weight"), shape)?;
        ConvNorm::new(self.gpu, options, weight.view(), Some(bias.view()))
    }

    pub fn unbiased<const R: usize>(&self, name: &str, shape: &[usize], options: Conv<R>) -> Result<ConvNorm<R>> {
        ConvNorm::new(self.gpu, options, self.get(&format!("{name}.weight"), shape)?.view(), None)
    }
}

/// The batch norm of these parts.
pub(crate) fn view(parts: &[ArrayD<f32>; 4], eps: f64) -> BatchNorm<'_> {
    let [gamma, beta, mean, var] = parts.each_ref().map(|part| part.view());
    BatchNorm { gamma, beta, mean, var, eps }
}
