//! The deformable layer, which predicts its own offsets and masks.

use ndarray::{Axis, Slice};

use super::conv_norm::{ConvNorm, Loader};
use super::{Parameters, quotient, same};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv2d;
use crate::ops::deform::DeformConv2d;
use crate::tensor::Tensor;

/// Options of a [`DeformLayer`].
#[derive(Clone, Copy, Debug)]
pub struct DeformConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Extent of the square kernel, odd.
    pub kernel: usize,
    /// Elements between neighbouring windows.
    pub stride: usize,
    /// Elements between neighbouring taps.
    pub dilation: usize,
    /// Groups of the weight.
    pub groups: usize,
    /// Groups of input channels that share offsets.
    pub offset_groups: usize,
    /// Version 2: with a mask. Version 1 has offsets alone.
    pub modulated: bool,
    /// Applied last.
    pub activation: Activation,
}

impl DeformConfig {
    /// 3x3, version 2, one group, no activation.
    #[must_use]
    pub fn new(in_channels: usize, out_channels: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: 3,
            stride: 1,
            dilation: 1,
            groups: 1,
            offset_groups: 1,
            modulated: true,
            activation: Activation::Identity,
        }
    }
}

/// Deformable convolution that looks at its input to tell where to sample: version 1 (Dai et al. 2017,
/// <https://arxiv.org/abs/1703.06211>) and version 2 (Zhu et al. 2019, <https://arxiv.org/abs/1811.11168>).
///
/// ```text
/// [N, C, H, W] -+-> conv k x k -> offsets [N, 2*OG*k*k, H', W'] ---------+
///               +-> conv k x k -> sigmoid -> mask [N, OG*k*k, H', W'] ---+   (version 2)
///               +--------------------------------------------------------+-> deformable conv, BN, activation -> [N, C', H', W']
/// ```
///
/// Names are MMCV's: `{conv}.weight`, and `{conv}.conv_offset.weight` and `.bias`, whose first `2*OG*k*k` channels are the offsets and
/// whose other `OG*k*k` are the mask before the sigmoid.
#[derive(Clone, Debug)]
#[must_use]
pub struct DeformLayer {
    offset: ConvNorm<2>,
    mask: Option<ConvNorm<2>>,
    deform: DeformConv2d,
    weight: Tensor,
    bias: Tensor,
}

impl DeformLayer {
    /// The layer `conv` and the batch norm `norm` behind it, or its own `{conv}.bias` where there is none.
    ///
    /// # Errors
    /// For groups that do not divide the channels; errors of the parameters and of the device.
    pub fn load(
        gpu: &Gpu,
        params: &dyn Parameters,
        (conv, norm): (&str, Option<&str>),
        config: DeformConfig,
    ) -> Result<Self> {
        Self::from(&Loader::new(gpu, params, ""), (conv, norm), config)
    }

    pub(super) fn from(loader: &Loader<'_>, (conv, norm): (&str, Option<&str>), config: DeformConfig) -> Result<Self> {
        let DeformConfig { in_channels, out_channels, kernel, stride, dilation, groups, offset_groups, .. } = config;
        let each = quotient("deform_layer", "groups", in_channels, groups)?;
        quotient("deform_layer", "offset_groups", in_channels, offset_groups)?;
        let taps = offset_groups.saturating_mul(kernel).saturating_mul(kernel);
        let channels = taps.saturating_mul(if config.modulated { 3 } else { 2 });
        let weight = loader.get(&format!("{conv}.conv_offset.weight"), &[channels, in_channels, kernel, kernel])?;
        let bias = loader.get(&format!("{conv}.conv_offset.bias"), &[channels])?;
        let padding = same(kernel, dilation);
        // Two convolutions, so that the mask's sigmoid is an epilogue and nothing has to be cut apart.
        let part = |range: std::ops::Range<usize>, activation| {
            let rows = Slice::from(range);
            let options = Conv2d::new().stride(stride).dilation(dilation).padding(padding).activation(activation);
            let (weight, bias) = (weight.slice_axis(Axis(0), rows), bias.slice_axis(Axis(0), rows));
            ConvNorm::new(loader.gpu, options, weight, Some(bias))
        };
        let weight = loader.get(&format!("{conv}.weight"), &[out_channels, each, kernel, kernel])?;
        let (weight, bias) = match norm {
            Some(norm) => loader.folded(&weight, norm)?,
            None => (weight, loader.get(&format!("{conv}.bias"), &[out_channels])?),
        };
        let deform = DeformConv2d::new().stride(stride).dilation(dilation).padding(padding);
        Ok(Self {
            offset: part(0..2 * taps, Activation::Identity)?,
            mask: config.modulated.then(|| part(2 * taps..channels, Activation::Sigmoid)).transpose()?,
            deform: deform.groups(groups).offset_groups(offset_groups).activation(config.activation),
            weight: Tensor::from_array(loader.gpu, &weight)?,
            bias: Tensor::from_array(loader.gpu, &bias)?,
        })
    }

    /// Records the layer.
    ///
    /// # Errors
    /// As [`DeformConv2d::forward`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let offset = self.offset.forward(x)?;
        let mask = self.mask.as_ref().map(|mask| mask.forward(x)).transpose()?;
        self.deform.forward(x, &offset, &self.weight, Some(&self.bias), mask.as_ref())
    }
}
