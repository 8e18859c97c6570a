//! Local self-attention, which is involution with other kernels.

use ndarray::{Array3, Array4};

use super::conv_norm::{ConvNorm, Loader};
use super::{Parameters, quotient, same};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::conv::{Conv1d, Conv2d};
use crate::ops::elementwise::Mul;
use crate::ops::involution::Involution2d;
use crate::ops::softmax::Softmax;
use crate::tensor::{Tensor, byte_count};

const OP: &str = "local_attention";

/// Options of a [`LocalAttention`].
#[derive(Clone, Copy, Debug)]
pub struct LocalAttentionConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of queries, keys, values and output.
    pub channels: usize,
    /// Heads, each with its share of the channels.
    pub heads: usize,
    /// Extent of the square window, odd.
    pub kernel: usize,
}

/// Self-attention over a K x K window around each pixel (Ramachandran et al. 2019, <https://arxiv.org/abs/1906.05909>), without its
/// embedding of positions:
///
/// `y[n,c,p] = sum over taps t of softmax over t of (q[n,h,p] . k[n,h,p+t] / sqrt(d)) * v[n,c,p+t]`, h the head of c, d its channels.
///
/// ```text
/// [N, C, H, W] -+-> 1x1 (query) ----------------------------------+-> * -> sum over a head's channels -> softmax over K*K -+
///               +-> 1x1 (key) -> its K*K neighbours as channels --+                                                        v
///               +-> 1x1 (value) -------------------------------------------------------------------------------> involution K x K
/// ```
///
/// Beyond the image keys and values are zero: such a tap has logit 0, takes its share of the softmax and adds nothing.
///
/// An involution's kernels are made from the pixel alone, these from the pixel and its neighbours; what applies them is the same
/// operator (Li et al. 2021, section 4.2). [`Self::weights`] gives them.
///
/// Names: `query.weight`, `key.weight`, `value.weight`, each `[channels, in_channels, 1, 1]`.
#[derive(Clone, Debug)]
#[must_use]
pub struct LocalAttention {
    query: ConvNorm<2>,
    key: ConvNorm<2>,
    value: ConvNorm<2>,
    /// Depthwise: channel `c*K*K + t` is channel c seen through tap t.
    neighbours: ConvNorm<2>,
    /// Grouped: the sum over a head's channels, over `sqrt(d)`.
    sum: ConvNorm<1>,
    config: LocalAttentionConfig,
}

impl LocalAttention {
    /// Loads the layers under the prefix.
    ///
    /// # Errors
    /// For heads that do not divide the channels and an even kernel; errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, config: LocalAttentionConfig) -> Result<Self> {
        let LocalAttentionConfig { in_channels, channels, heads, kernel } = config;
        let each = quotient(OP, "heads", channels, heads)?;
        if kernel % 2 == 0 {
            return Err(Error::invalid(OP, "kernel", "an odd one", kernel));
        }
        let taps = kernel.saturating_mul(kernel);
        byte_count(OP, "kernel", &[channels, taps, taps], u64::MAX)?;
        let one_hot = Array4::from_shape_fn((channels * taps, 1, kernel, kernel), |(row, _, y, x)| {
            f32::from(u8::from(row % taps == y * kernel + x))
        });
        let scale = Array3::from_elem((heads, each, 1), (1.0 / (each as f64).sqrt()) as f32);
        let loader = Loader::new(gpu, params, prefix);
        let projection = |name: &str| loader.unbiased(name, &[channels, in_channels, 1, 1], Conv2d::new());
        let depthwise = Conv2d::new().groups(channels).padding(same(kernel, 1));
        Ok(Self {
            query: projection("query")?,
            key: projection("key")?,
            value: projection("value")?,
            neighbours: ConvNorm::new(gpu, depthwise, one_hot.view().into_dyn(), None)?,
            sum: ConvNorm::new(gpu, Conv1d::new().groups(heads), scale.view().into_dyn(), None)?,
            config,
        })
    }

    /// The attention `[N, heads, K, K, H, W]`, as [`Involution2d`] takes it.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn weights(&self, x: &Tensor) -> Result<Tensor> {
        let LocalAttentionConfig { channels: c, heads, kernel, .. } = self.config;
        let (query, key) = (self.query.forward(x)?, self.key.forward(x)?);
        // Convolutions have taken x: it has four axes.
        let (n, h, w) = (x.shape()[0], x.shape()[2], x.shape()[3]);
        let taps = kernel * kernel;
        let keys = self.neighbours.forward(&key)?.reshape(&[n, c, taps, h * w])?;
        let products = Mul::new().forward(&query.reshape(&[n, c, 1, h * w])?, &keys)?;
        let logits = self.sum.forward(&products.reshape(&[n, c, taps * h * w])?)?;
        let weights = Softmax::new(2).forward(&logits.reshape(&[n, heads, taps, h * w])?)?;
        weights.reshape(&[n, heads, kernel, kernel, h, w])
    }

    /// Records the layer.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weights = self.weights(x)?;
        let involution = Involution2d::new().groups(self.config.heads).padding(same(self.config.kernel, 1));
        involution.forward(&self.value.forward(x)?, &weights, None)
    }
}
