//! Depthwise separable blocks: MobileNetV1, MobileNetV2, Xception.

use super::Parameters;
use super::conv_norm::{ConvNorm, Loader};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv2d;
use crate::ops::separable::{SeparableConv2d, SeparableWeights};
use crate::tensor::Tensor;

/// A depthwise 3x3 of `channels`, padded by one.
fn depthwise(channels: usize, stride: usize, activation: Activation) -> (Conv2d, [usize; 4]) {
    let options = Conv2d::new().stride(stride).padding(1).groups(channels).activation(activation);
    (options, [channels, 1, 3, 3])
}

/// A depthwise 3x3 and the 1x1 behind it, in one pass where that is faster.
fn separable(
    options: &SeparableConv2d,
    x: &Tensor,
    [depthwise, pointwise]: [&ConvNorm<2>; 2],
) -> Result<Tensor> {
    let ((depthwise, depthwise_bias), (pointwise, pointwise_bias)) = (depthwise.parts(), pointwise.parts());
    options.forward(x, &SeparableWeights { depthwise, depthwise_bias, pointwise, pointwise_bias })
}

/// MobileNetV1's block (Howard et al. 2017, <https://arxiv.org/abs/1704.04861>).
///
/// ```text
/// [N, C, H, W] -> depthwise 3x3 / s, BN, ReLU -> 1x1, BN, ReLU -> [N, C', H/s, W/s]
/// ```
///
/// Names are timm's: `conv_dw`, `bn1`, `conv_pw`, `bn2`.
#[derive(Clone, Debug)]
#[must_use]
pub struct MobileNetV1Block {
    options: SeparableConv2d,
    depthwise: ConvNorm<2>,
    pointwise: ConvNorm<2>,
}

impl MobileNetV1Block {
    /// Loads the layers under the prefix, for these channels in and out and this stride.
    ///
    /// # Errors
    /// Errors of the parameters and of the device.
    pub fn load(
        gpu: &Gpu,
        params: &dyn Parameters,
        prefix: &str,
        [c_in, c_out]: [usize; 2],
        stride: usize,
    ) -> Result<Self> {
        let loader = Loader::new(gpu, params, prefix);
        let (options, shape) = depthwise(c_in, stride, Activation::Relu);
        let pointwise = Conv2d::new().activation(Activation::Relu);
        let separable = SeparableConv2d::new().stride(stride).padding(1);
        Ok(Self {
            options: separable.depthwise_activation(Activation::Relu).activation(Activation::Relu),
            depthwise: loader.conv("conv_dw", "bn1", &shape, options)?,
            pointwise: loader.conv("conv_pw", "bn2", &[c_out, c_in, 1, 1], pointwise)?,
        })
    }

    /// Records the block.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        separable(&self.options, x, [&self.depthwise, &self.pointwise])
    }
}

/// MobileNetV2's inverted residual with a linear bottleneck (Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>).
///
/// ```text
/// [N, C, H, W] -+-> 1x1 to t*C, BN, ReLU6 -> depthwise 3x3 / s, BN, ReLU6 -> 1x1, BN -+-> (+) -> [N, C', H/s, W/s]
///               +-> as it is, where the shapes agree --------------------------------+
/// ```
///
/// Without expansion (`t = 1`) the first layer is left out. Names are torchvision's: `conv.0.0`, `conv.0.1`, `conv.1.0` and so on.
#[derive(Clone, Debug)]
#[must_use]
pub struct InvertedResidual {
    expand: Option<ConvNorm<2>>,
    options: SeparableConv2d,
    depthwise: ConvNorm<2>,
    project: ConvNorm<2>,
    shortcut: bool,
}

impl InvertedResidual {
    /// Loads the layers under the prefix, for these channels in and out, this stride and the expansion `t`.
    ///
    /// # Errors
    /// Errors of the parameters and of the device.
    pub fn load(
        gpu: &Gpu,
        params: &dyn Parameters,
        prefix: &str,
        [c_in, c_out]: [usize; 2],
        (stride, expansion): (usize, usize),
    ) -> Result<Self> {
        let loader = Loader::new(gpu, params, prefix);
        let hidden = c_in.saturating_mul(expansion);
        let first = usize::from(expansion != 1);
        let relu6 = Conv2d::new().activation(Activation::Relu6);
        let expand = || loader.conv("conv.0.0", "conv.0.1", &[hidden, c_in, 1, 1], relu6);
        let (options, shape) = depthwise(hidden, stride, Activation::Relu6);
        let [conv, norm, project, project_norm] =
            [format!("{first}.0"), format!("{first}.1"), format!("{}", first + 1), format!("{}", first + 2)]
                .map(|name| format!("conv.{name}"));
        Ok(Self {
            options: SeparableConv2d::new().stride(stride).padding(1).depthwise_activation(Activation::Relu6),
            expand: (expansion != 1).then(expand).transpose()?,
            depthwise: loader.conv(&conv, &norm, &shape, options)?,
            project: loader.conv(&project, &project_norm, &[c_out, hidden, 1, 1], Conv2d::new())?,
            shortcut: stride == 1 && c_in == c_out,
        })
    }

    /// Records the block.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let expanded = self.expand.as_ref().map(|expand| expand.forward(x)).transpose()?;
        let hidden = expanded.as_ref().unwrap_or(x);
        let options = if self.shortcut { self.options.clone().residual(x) } else { self.options.clone() };
        separable(&options, hidden, [&self.depthwise, &self.project])
    }
}

/// Xception's separable unit (Chollet 2017, <https://arxiv.org/abs/1610.02357>): the ReLU comes first and nothing stands between the two
/// convolutions.
///
/// ```text
/// [N, C, H, W] -> ReLU -> depthwise 3x3 -> 1x1, BN -> [N, C', H, W]
/// ```
///
/// Names are those of the common port: `{prefix}.conv1`, `{prefix}.pointwise`, and a batch norm by its own name.
#[derive(Clone, Debug)]
#[must_use]
pub struct XceptionUnit {
    depthwise: ConvNorm<2>,
    pointwise: ConvNorm<2>,
    relu: bool,
}

impl XceptionUnit {
    /// Loads the unit for these channels in and out: convolutions under the first name, batch norm under the second. `relu`: whether
    /// it begins with one, which the first unit of the entry flow's first block does not.
    ///
    /// # Errors
    /// Errors of the parameters and of the device.
    pub fn load(
        gpu: &Gpu,
        params: &dyn Parameters,
        (prefix, norm): (&str, &str),
        [c_in, c_out]: [usize; 2],
        relu: bool,
    ) -> Result<Self> {
        let loader = Loader::new(gpu, params, "");
        let (options, shape) = depthwise(c_in, 1, Activation::Identity);
        let pointwise = format!("{prefix}.pointwise");
        Ok(Self {
            depthwise: loader.unbiased(&format!("{prefix}.conv1"), &shape, options)?,
            pointwise: loader.conv(&pointwise, norm, &[c_out, c_in, 1, 1], Conv2d::new())?,
            relu,
        })
    }

    /// Records the unit.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let spatial = match self.relu {
            true => self.depthwise.forward(&Activation::Relu.forward(x)?)?,
            false => self.depthwise.forward(x)?,
        };
        self.pointwise.forward(&spatial)
    }
}
