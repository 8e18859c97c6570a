//! The bottleneck of residual networks, with what different papers put in its middle.

use ndarray::ArrayD;

use super::conv_norm::{ConvNorm, Loader};
use super::deform::{DeformConfig, DeformLayer};
use super::involution::{InvolutionConfig, load_involution};
use super::{Parameters, quotient};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv2d;
use crate::ops::involution::layer::InvolutionLayer;
use crate::tensor::Tensor;

/// The middle layer of a [`Bottleneck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Middle {
    /// 3x3 (ResNet), grouped (ResNeXt) or dilated (DeepLab).
    Conv,
    /// Deformable 3x3: version 2 where `modulated`, else version 1.
    Deform {
        /// With a mask.
        modulated: bool,
        /// Groups of input channels that share offsets.
        offset_groups: usize,
    },
    /// Involution (RedNet).
    Involution {
        /// Extent of the square kernel, odd; 7 in RedNet.
        kernel: usize,
        /// Channels that share a kernel; 16 in RedNet.
        group_channels: usize,
    },
}

/// Options of a [`Bottleneck`].
#[derive(Clone, Copy, Debug)]
pub struct BottleneckConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the middle layer.
    pub width: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Of the middle layer.
    pub stride: usize,
    /// Of the middle layer.
    pub dilation: usize,
    /// Of the middle layer; 32 in ResNeXt. An involution has its own.
    pub groups: usize,
    /// The middle layer.
    pub middle: Middle,
}

impl BottleneckConfig {
    /// ResNet's, of stride 1.
    #[must_use]
    pub fn new(in_channels: usize, width: usize, out_channels: usize) -> Self {
        Self { in_channels, width, out_channels, stride: 1, dilation: 1, groups: 1, middle: Middle::Conv }
    }
}

/// The bottleneck of ResNet (He et al. 2016, <https://arxiv.org/abs/1512.03385>, with the stride at the 3x3 as torchvision has it), of
/// ResNeXt (Xie et al. 2017: 3x3 in groups), of deformable networks (Dai et al. 2017, Zhu et al. 2019) and of RedNet (Li et al. 2021).
///
/// ```text
/// [N, C, H, W] -+-> 1x1, BN, ReLU -> 3x3 or other, BN, ReLU -> 1x1, BN -+-> + -> ReLU -> [N, C', H/s, W/s]
///               +-> as it is, or 1x1 of stride s, BN -------------------+
/// ```
///
/// The shortcut has a convolution where stride or channels change. Names are torchvision's: `conv1`, `bn1` to `conv3`, `bn3`,
/// `downsample.0`, `downsample.1`; a deformable middle has [`DeformLayer`]'s under `conv2`, an involution
/// [`load_involution`]'s.
///
/// # Example
/// ```no_run
/// use wgconv::blocks::{Bottleneck, BottleneckConfig, Middle, Seeded};
/// use wgconv::{Gpu, Tensor};
/// let gpu = Gpu::new_blocking()?;
/// let rednet = Middle::Involution { kernel: 7, group_channels: 16 };
/// let config = BottleneckConfig { stride: 2, middle: rednet, ..BottleneckConfig::new(256, 128, 512) };
/// let block = Bottleneck::load(&gpu, &Seeded(1), "layer2.0", config)?;
/// assert_eq!(block.forward(&Tensor::zeros(&gpu, &[1, 256, 56, 56])?)?.shape(), [1, 512, 28, 28]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Bottleneck {
    reduce: ConvNorm<2>,
    middle: Layer,
    expand: ConvNorm<2>,
    downsample: Option<ConvNorm<2>>,
}

#[derive(Clone, Debug)]
enum Layer {
    Conv(ConvNorm<2>),
    Deform(DeformLayer),
    /// With its batch norm and ReLU, which fold into nothing: channels share kernels but not scales. They run as a depthwise 1x1.
    Involution(InvolutionLayer, ConvNorm<2>),
}

impl Bottleneck {
    /// Loads the layers under the prefix.
    ///
    /// # Errors
    /// For groups that do not divide the channels; errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, config: BottleneckConfig) -> Result<Self> {
        let loader = Loader::new(gpu, params, prefix);
        let BottleneckConfig { in_channels, width, out_channels, stride, dilation, groups, .. } = config;
        let relu = || Conv2d::new().activation(Activation::Relu);
        let reduce = loader.conv("conv1", "bn1", &[width, in_channels, 1, 1], relu())?;
        let middle = match config.middle {
            Middle::Conv => {
                let each = quotient("bottleneck", "groups", width, groups)?;
                let options = relu().stride(stride).dilation(dilation).padding(dilation).groups(groups);
                Layer::Conv(loader.conv("conv2", "bn2", &[width, each, 3, 3], options)?)
            }
            Middle::Deform { modulated, offset_groups } => {
                let activation = Activation::Relu;
                let new = DeformConfig::new(width, width);
                let deform = DeformConfig { stride, dilation, groups, offset_groups, modulated, activation, ..new };
                Layer::Deform(DeformLayer::from(&loader, ("conv2", Some("bn2")), deform)?)
            }
            Middle::Involution { kernel, group_channels } => {
                let new = InvolutionConfig::new(width);
                let involution = InvolutionConfig { kernel, stride, dilation, group_channels, ..new };
                let ones = ArrayD::ones(&[width, 1, 1, 1][..]);
                let (scale, shift) = loader.folded(&ones, "bn2")?;
                Layer::Involution(
                    load_involution(gpu, params, &loader.name("conv2"), involution)?,
                    ConvNorm::new(gpu, relu().groups(width), scale.view(), Some(shift.view()))?,
                )
            }
        };
        let changes = stride != 1 || in_channels != out_channels;
        let shortcut = || {
            let options = Conv2d::new().stride(stride);
            loader.conv("downsample.0", "downsample.1", &[out_channels, in_channels, 1, 1], options)
        };
        Ok(Self {
            reduce,
            middle,
            expand: loader.conv("conv3", "bn3", &[out_channels, width, 1, 1], relu())?,
            downsample: changes.then(shortcut).transpose()?,
        })
    }

    /// Records the block.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let reduced = self.reduce.forward(x)?;
        let middle = match &self.middle {
            Layer::Conv(conv) => conv.forward(&reduced)?,
            Layer::Deform(deform) => deform.forward(&reduced)?,
            Layer::Involution(involution, norm) => norm.forward(&involution.forward(&reduced)?)?,
        };
        match &self.downsample {
            Some(downsample) => self.expand.forward_with_residual(&middle, &downsample.forward(x)?),
            None => self.expand.forward_with_residual(&middle, x),
        }
    }
}
