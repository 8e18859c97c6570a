//! RedNet's involution layer from a state dict.

use super::conv_norm::{Loader, view};
use super::{Parameters, quotient, same};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::involution::Involution2d;
use crate::ops::involution::layer::{InvolutionLayer, InvolutionLayerWeights};

/// Options of [`load_involution`]; the defaults are RedNet's.
#[derive(Clone, Copy, Debug)]
pub struct InvolutionConfig {
    /// Channels of input and output.
    pub channels: usize,
    /// Extent of the square kernel, odd.
    pub kernel: usize,
    /// Elements between neighbouring windows.
    pub stride: usize,
    /// Elements between neighbouring taps.
    pub dilation: usize,
    /// Channels that share a kernel.
    pub group_channels: usize,
    /// How many times fewer channels the kernels are made from.
    pub reduction: usize,
}

impl InvolutionConfig {
    /// Kernel 7, 16 channels a group, reduction 4, stride and dilation 1.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        Self { channels, kernel: 7, stride: 1, dilation: 1, group_channels: 16, reduction: 4 }
    }
}

/// An [`InvolutionLayer`] (Li et al. 2021) by the names of the authors' code: `conv1.conv.weight`, `conv1.bn.*`, `conv2.conv.weight` and
/// `.bias`.
///
/// ```text
/// [N, C, H, W] -+--------------------------------------------------------------+-> involution k x k -> [N, C, H/s, W/s]
///               +-> mean s x s -> 1x1, C/r, BN, ReLU -> 1x1, C/g*k*k (kernels) -+
/// ```
///
/// # Errors
/// For a reduction or a group that does not divide the channels; errors of the parameters and of the device.
pub fn load_involution(
    gpu: &Gpu,
    params: &dyn Parameters,
    prefix: &str,
    config: InvolutionConfig,
) -> Result<InvolutionLayer> {
    let InvolutionConfig { channels, kernel, stride, dilation, .. } = config;
    let groups = quotient("involution_layer", "group_channels", channels, config.group_channels)?;
    let reduced = quotient("involution_layer", "reduction", channels, config.reduction)?;
    let spanned = groups.saturating_mul(kernel).saturating_mul(kernel);
    let loader = Loader::new(gpu, params, prefix);
    let norm = loader.norm("conv1.bn", reduced)?;
    let reduce = loader.get("conv1.conv.weight", &[reduced, channels, 1, 1])?;
    let span = loader.get("conv2.conv.weight", &[spanned, reduced, 1, 1])?;
    let span_bias = loader.get("conv2.conv.bias", &[spanned])?;
    let weights = InvolutionLayerWeights {
        reduce: reduce.view(),
        norm: view(&norm, loader.eps),
        span: span.view(),
        span_bias: Some(span_bias.view()),
    };
    let padding = same(kernel, dilation);
    let options = Involution2d::new().kernel_size(kernel).stride(stride).dilation(dilation).padding(padding);
    InvolutionLayer::new(gpu, options.groups(groups), &weights)
}
