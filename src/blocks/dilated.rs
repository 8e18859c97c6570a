//! Dilated blocks of segmentation networks: ASPP, hybrid dilated convolution, dense up-sampling convolution.

use super::Parameters;
use super::conv_norm::{ConvNorm, Loader};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv2d;
use crate::ops::pool::GlobalAvgPool;
use crate::ops::rearrange::{Concat, PixelShuffle, UpsampleNearest};
use crate::tensor::Tensor;

/// Options of an [`Aspp`].
#[derive(Clone, Debug)]
pub struct AsppConfig {
    /// Channels of the input; 2048 behind ResNet.
    pub in_channels: usize,
    /// Channels of each branch and of the output.
    pub out_channels: usize,
    /// Dilations of the 3x3 branches.
    pub rates: Vec<usize>,
}

impl AsppConfig {
    /// Rates 6, 12, 18.
    #[must_use]
    pub fn new(in_channels: usize, out_channels: usize) -> Self {
        Self { in_channels, out_channels, rates: vec![6, 12, 18] }
    }
}

/// Atrous spatial pyramid pooling of DeepLabv3 (Chen et al. 2017, <https://arxiv.org/abs/1706.05587>); each layer has batch norm and ReLU.
///
/// ```text
///               +-> 1x1 ---------------------------------+
///               +-> 3x3, dilation 6 ---------------------+
/// [N, C, H, W] -+-> 3x3, dilation 12 --------------------+-> concat -> 1x1 -> [N, C', H, W]
///               +-> 3x3, dilation 18 --------------------+
///               +-> mean over the image -> 1x1 -> spread +
/// ```
///
/// Names are torchvision's: `convs.0.0` and `convs.0.1` to `convs.4.1` and `convs.4.2`, `project.0`, `project.1`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Aspp {
    branches: Vec<ConvNorm<2>>,
    image: ConvNorm<2>,
    project: ConvNorm<2>,
}

impl Aspp {
    /// Loads the layers under the prefix.
    ///
    /// # Errors
    /// Errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, config: &AsppConfig) -> Result<Self> {
        let loader = Loader::new(gpu, params, prefix);
        let (c_in, c_out, last) = (config.in_channels, config.out_channels, config.rates.len() + 1);
        let relu = || Conv2d::new().activation(Activation::Relu);
        let mut branches = vec![loader.conv("convs.0.0", "convs.0.1", &[c_out, c_in, 1, 1], relu())?];
        for (&rate, i) in config.rates.iter().zip(1..) {
            let names = [format!("convs.{i}.0"), format!("convs.{i}.1")];
            let options = relu().dilation(rate).padding(rate);
            branches.push(loader.conv(&names[0], &names[1], &[c_out, c_in, 3, 3], options)?);
        }
        let names = [format!("convs.{last}.1"), format!("convs.{last}.2")];
        let joined = c_out.saturating_mul(last + 1);
        Ok(Self {
            branches,
            image: loader.conv(&names[0], &names[1], &[c_out, c_in, 1, 1], relu())?,
            project: loader.conv("project.0", "project.1", &[c_out, joined, 1, 1], relu())?,
        })
    }

    /// Records the block.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut parts = self.branches.iter().map(|branch| branch.forward(x)).collect::<Result<Vec<_>>>()?;
        let image = self.image.forward(&GlobalAvgPool::new().forward(x)?)?;
        // A convolution has taken x: it has four axes. One pixel interpolated is the same everywhere.
        let factors = [x.shape()[2], x.shape()[3]];
        parts.push(UpsampleNearest::new(factors).forward(&image)?);
        self.project.forward(&Concat::new(1).forward(&parts.iter().collect::<Vec<_>>())?)
    }
}

/// Rates of hybrid dilated convolution whose taps leave no holes.
pub const HDC_1_2_5: [usize; 3] = [1, 2, 5];
/// Rates of hybrid dilated convolution for a smaller field.
pub const HDC_1_2_3: [usize; 3] = [1, 2, 3];

/// A group of hybrid dilated convolution (Wang et al. 2018, <https://arxiv.org/abs/1702.08502>): rates without a common factor, so that
/// together their taps touch every pixel of the field, where equal rates leave a grid of holes.
///
/// ```text
/// [N, C, H, W] -> 3x3, dilation 1, BN, ReLU -> 3x3, dilation 2, BN, ReLU -> 3x3, dilation 5, BN, ReLU -> [N, C, H, W]
/// ```
///
/// Names: `conv1`, `bn1`, `conv2`, `bn2`, ...
#[derive(Clone, Debug)]
#[must_use]
pub struct Hdc(Vec<ConvNorm<2>>);

impl Hdc {
    /// Loads a layer for each rate under the prefix.
    ///
    /// # Errors
    /// For no rates; errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, channels: usize, rates: &[usize]) -> Result<Self> {
        if rates.is_empty() {
            return Err(Error::invalid("hdc", "rates", "at least one", 0));
        }
        let loader = Loader::new(gpu, params, prefix);
        let layer = |(&rate, i): (&usize, usize)| {
            let options = Conv2d::new().dilation(rate).padding(rate).activation(Activation::Relu);
            loader.conv(&format!("conv{i}"), &format!("bn{i}"), &[channels, channels, 3, 3], options)
        };
        rates.iter().zip(1..).map(layer).collect::<Result<_>>().map(Self)
    }

    /// Records the group.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
    }
}

/// Dense up-sampling convolution (Wang et al. 2018, <https://arxiv.org/abs/1702.08502>): all pixels of a block are channels of one
/// convolution.
///
/// ```text
/// [N, C, H, W] -> 3x3 with bias to L*r*r -> pixel shuffle -> [N, L, H*r, W*r]
/// ```
///
/// Name: `conv`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Duc {
    conv: ConvNorm<2>,
    factor: usize,
}

impl Duc {
    /// Loads the convolution under the prefix, for these channels in and classes out.
    ///
    /// # Errors
    /// Errors of the parameters and of the device.
    pub fn load(
        gpu: &Gpu,
        params: &dyn Parameters,
        prefix: &str,
        [c_in, classes]: [usize; 2],
        factor: usize,
    ) -> Result<Self> {
        let channels = classes.saturating_mul(factor).saturating_mul(factor);
        let loader = Loader::new(gpu, params, prefix);
        Ok(Self { conv: loader.biased("conv", &[channels, c_in, 3, 3], Conv2d::new().padding(1))?, factor })
    }

    /// Records the block.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        PixelShuffle::new(self.factor).forward(&self.conv.forward(x)?)
    }
}
