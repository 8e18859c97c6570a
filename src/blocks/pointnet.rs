//! PointNet's features of a set of points.

use super::Parameters;
use super::conv_norm::{ConvNorm, Loader};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv1d;
use crate::ops::pool::MaxPool1d;
use crate::tensor::Tensor;

/// PointNet's shared layers and its maximum over the points (Qi et al. 2017, <https://arxiv.org/abs/1612.00593>): every point goes
/// through the same 1x1 convolutions, and the maximum does not ask for their order.
///
/// ```text
/// [N, 3, points] -> 1x1, BN, ReLU -> 1x1, BN, ReLU -> ... -> max over the points -> [N, C]
/// ```
///
/// Names: `conv1`, `bn1`, `conv2`, `bn2`, ...
#[derive(Clone, Debug)]
#[must_use]
pub struct PointNet(Vec<ConvNorm<1>>);

impl PointNet {
    /// Loads the layers under the prefix; `channels` are those of the points and of each layer: the paper's are
    /// `[3, 64, 64, 64, 128, 1024]`.
    ///
    /// # Errors
    /// For less than two channel counts; errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, channels: &[usize]) -> Result<Self> {
        if channels.len() < 2 {
            return Err(Error::invalid("pointnet", "channels", "at least two counts", channels.len()));
        }
        let loader = Loader::new(gpu, params, prefix);
        let layer = |(pair, i): (&[usize], usize)| {
            let options = Conv1d::new().activation(Activation::Relu);
            loader.conv(&format!("conv{i}"), &format!("bn{i}"), &[pair[1], pair[0], 1], options)
        };
        channels.windows(2).zip(1..).map(layer).collect::<Result<_>>().map(Self)
    }

    /// Records the layers and the maximum.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let features = self.0.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))?;
        // A convolution has made it: it has three axes.
        let shape = features.shape();
        MaxPool1d::new(shape[2]).forward(&features)?.reshape(&shape[..2])
    }
}
