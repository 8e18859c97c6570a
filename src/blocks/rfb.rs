//! The receptive field block.

use super::conv_norm::{ConvNorm, Loader};
use super::{Parameters, quotient};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv2d;
use crate::ops::rearrange::Concat;
use crate::tensor::Tensor;

/// Options of an [`Rfb`].
#[derive(Clone, Copy, Debug)]
pub struct RfbConfig {
    /// Channels of the input, a multiple of 8.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Elements between neighbouring windows.
    pub stride: usize,
    /// Of the branches before the shortcut is added.
    pub scale: f32,
    /// Dilation of the first branch; the others add to it.
    pub visual: usize,
}

impl RfbConfig {
    /// Stride 1, scale 0.1, visual 1, as the authors have them.
    #[must_use]
    pub fn new(in_channels: usize, out_channels: usize) -> Self {
        Self { in_channels, out_channels, stride: 1, scale: 0.1, visual: 1 }
    }
}

/// The receptive field block (Liu et al. 2018, <https://arxiv.org/abs/1711.07767>), as the authors' `BasicRFB`. Each layer has a batch
/// norm, all but the dilated ones, the join and the shortcut a ReLU; m is C/8, v is `visual`.
///
/// ```text
///               +-> 1x1, 2m, stride s -> 3x3, 2m, dilation v --------------------------+
/// [N, C, H, W] -+-> 1x1, m -> 3x3, 2m, stride s -> 3x3, 2m, dilation v+1 --------------+-> concat -> 1x1 * scale -> + -> ReLU
///               +-> 1x1, m -> 3x3, 3m/2 -> 3x3, 2m, stride s -> 3x3, 2m, dilation 2v+1 +                            |
///               +-> 1x1, stride s ------------------------------------------------------------------------------->--+
/// ```
///
/// Names are the authors': `branch0.0.conv`, `branch0.0.bn` and so on, `ConvLinear`, `shortcut`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Rfb {
    branches: [Vec<ConvNorm<2>>; 3],
    join: ConvNorm<2>,
    shortcut: ConvNorm<2>,
}

impl Rfb {
    /// Loads the layers under the prefix.
    ///
    /// # Errors
    /// For channels that 8 does not divide; errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, config: RfbConfig) -> Result<Self> {
        let loader = Loader::new(gpu, params, prefix);
        let RfbConfig { in_channels: c, out_channels, stride: s, visual: v, scale } = config;
        let m = quotient("rfb", "in_channels", c, 8)?;
        let relu =
            |stride: usize, padding: usize| Conv2d::new().stride(stride).padding(padding).activation(Activation::Relu);
        let dilated = |dilation: usize| Conv2d::new().padding(dilation).dilation(dilation);
        // Each layer: channels out, kernel, options.
        let branches = [
            vec![(2 * m, 1, relu(s, 0)), (2 * m, 3, dilated(v))],
            vec![(m, 1, relu(1, 0)), (2 * m, 3, relu(s, 1)), (2 * m, 3, dilated(v.saturating_add(1)))],
            vec![
                (m, 1, relu(1, 0)),
                (m / 2 * 3, 3, relu(1, 1)),
                (2 * m, 3, relu(s, 1)),
                (2 * m, 3, dilated(v.saturating_mul(2).saturating_add(1))),
            ],
        ];
        let load = |(branch, layers): (usize, &Vec<(usize, usize, Conv2d)>)| {
            let mut channels = c;
            let layer = |(i, (c_out, kernel, options)): (usize, &(usize, usize, Conv2d))| {
                let c_in = std::mem::replace(&mut channels, *c_out);
                let [conv, norm] = ["conv", "bn"].map(|part| format!("branch{branch}.{i}.{part}"));
                loader.conv(&conv, &norm, &[*c_out, c_in, *kernel, *kernel], options.clone())
            };
            layers.iter().enumerate().map(layer).collect::<Result<Vec<_>>>()
        };
        let [a, b, d] = &branches;
        let weight = loader.get("ConvLinear.conv.weight", &[out_channels, 6 * m, 1, 1])?;
        let (weight, bias) = loader.folded(&weight, "ConvLinear.bn")?;
        let shortcut = Conv2d::new().stride(s);
        Ok(Self {
            branches: [load((0, a))?, load((1, b))?, load((2, d))?],
            join: ConvNorm::new(gpu, relu(1, 0), (weight * scale).view(), Some((bias * scale).view()))?,
            shortcut: loader.conv("shortcut.conv", "shortcut.bn", &[out_channels, c, 1, 1], shortcut)?,
        })
    }

    /// Records the block.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let branch = |layers: &Vec<ConvNorm<2>>| layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x));
        let [a, b, c] = &self.branches;
        let joined = Concat::new(1).forward(&[&branch(a)?, &branch(b)?, &branch(c)?])?;
        self.join.forward_with_residual(&joined, &self.shortcut.forward(x)?)
    }
}
