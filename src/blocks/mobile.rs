//! Depthwise separable blocks: MobileNetV1, MobileNetV2, Xception.

use super::Parameters;
use super::conv_norm::{ConvNorm, Loader};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv2d;
use crate::ops::separable::{SeparableConv2d, SeparableWeights};
use crate::tensor::Tensor;

/// A depthwise 3x3, padded by one, and the 1x1 behind it, with the batch norms folded in.
#[derive(Clone, Debug)]
struct SeparableNorm {
    options: SeparableConv2d,
    /// Weight and bias.
    depthwise: [Tensor; 2],
    pointwise: [Tensor; 2],
}

impl SeparableNorm {
    /// Loads both by the names of convolution and batch norm.
    fn load(
        loader: &Loader<'_>,
        options: SeparableConv2d,
        [depthwise, pointwise]: [(&str, &str); 2],
        [c_in, c_out]: [usize; 2],
    ) -> Result<Self> {
        let part = |(conv, norm): (&str, &str), shape: &[usize]| -> Result<[Tensor; 2]> {
            let (weight, bias) = loader.folded(&loader.get(&format!("{conv}.weight"), shape)?, norm)?;
            Ok([Tensor::from_array(loader.gpu, &weight)?, Tensor::from_array(loader.gpu, &bias)?])
        };
        let options = options.padding(1);
        Ok(Self {
            options,
            depthwise: part(depthwise, &[c_in, 1, 3, 3])?,
            pointwise: part(pointwise, &[c_out, c_in, 1, 1])?,
        })
    }

    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let ([depthwise, depthwise_bias], [pointwise, pointwise_bias]) = (&self.depthwise, &self.pointwise);
        let weights = SeparableWeights {
            depthwise,
            depthwise_bias: Some(depthwise_bias),
            pointwise,
            pointwise_bias: Some(pointwise_bias),
        };
        match residual {
            Some(residual) => self.options.clone().residual(residual).forward(x, &weights),
            None => self.options.forward(x, &weights),
        }
    }
}

/// MobileNetV1's block (Howard et al. 2017, <https://arxiv.org/abs/1704.04861>).
///
/// ```text
/// [N, C, H, W] -> depthwise 3x3 / s, BN, ReLU -> 1x1, BN, ReLU -> [N, C', H/s, W/s]
/// ```
///
/// Both layers are one [`SeparableConv2d`], fused on GPUs where that pays. Names are timm's: `conv_dw`, `bn1`, `conv_pw`, `bn2`.
#[derive(Clone, Debug)]
#[must_use]
pub struct MobileNetV1Block(SeparableNorm);

impl MobileNetV1Block {
    /// Loads the layers under the prefix, for these channels in and out and this stride.
    ///
    /// # Errors
    /// Errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, channels: [usize; 2], stride: usize) -> Result<Self> {
        let options = SeparableConv2d::new().stride(stride).depthwise_activation(Activation::Relu);
        let (options, names) = (options.activation(Activation::Relu), [("conv_dw", "bn1"), ("conv_pw", "bn2")]);
        SeparableNorm::load(&Loader::new(gpu, params, prefix), options, names, channels).map(Self)
    }

    /// Records the block.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x, None)
    }
}

/// MobileNetV2's inverted residual with a linear bottleneck (Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>).
///
/// ```text
/// [N, C, H, W] -+-> 1x1 to t*C, BN, ReLU6 -> depthwise 3x3 / s, BN, ReLU6 -> 1x1, BN -+-> (+) -> [N, C', H/s, W/s]
///               +-> as it is, where the shapes agree --------------------------------+
/// ```
///
/// Without expansion (`t = 1`) the first layer is left out. The other two are one [`SeparableConv2d`], fused on GPUs where that pays.
/// Names are torchvision's: `conv.0.0`, `conv.0.1`, `conv.1.0` and so on.
#[derive(Clone, Debug)]
#[must_use]
pub struct InvertedResidual {
    expand: Option<ConvNorm<2>>,
    separable: SeparableNorm,
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
        let options = SeparableConv2d::new().stride(stride).depthwise_activation(Activation::Relu6);
        let [conv, norm, project, project_norm] =
            [format!("{first}.0"), format!("{first}.1"), format!("{}", first + 1), format!("{}", first + 2)]
                .map(|name| format!("conv.{name}"));
        let names = [(&*conv, &*norm), (&*project, &*project_norm)];
        Ok(Self {
            expand: (expansion != 1).then(expand).transpose()?,
            separable: SeparableNorm::load(&loader, options, names, [hidden, c_out])?,
            shortcut: stride == 1 && c_in == c_out,
        })
    }

    /// Records the block.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let expanded = self.expand.as_ref().map(|expand| expand.forward(x)).transpose()?;
        self.separable.forward(expanded.as_ref().unwrap_or(x), self.shortcut.then_some(x))
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
        let (options, shape) = (Conv2d::new().padding(1).groups(c_in), [c_in, 1, 3, 3]);
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
