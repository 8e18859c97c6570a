//! FCN's up-sampling by a transposed convolution.

use ndarray::{Array4, ArrayD};

use super::Parameters;
use super::conv_norm::Loader;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::conv_transpose::ConvTranspose2d;
use crate::tensor::{Tensor, byte_count};

const OP: &str = "fcn_upsample";

/// Kernel and padding that turn H into exactly `factor * H`.
fn geometry(factor: usize) -> Result<(usize, usize)> {
    if !(1..=1024).contains(&factor) {
        return Err(Error::invalid(OP, "factor", "1 to 1024", factor));
    }
    Ok((2 * factor - factor % 2, factor / 2))
}

/// The weight `[C, 1, k, k]`, `k = 2*factor - factor % 2`, with which a transposed convolution in C groups interpolates bilinearly.
///
/// ```
/// let weight = wgconv::blocks::bilinear_weight(1, 2)?;
/// assert_eq!(weight.as_slice(), Some([1.0, 3.0, 3.0, 1.0].map(|a| [1.0, 3.0, 3.0, 1.0].map(|b| a * b / 16.0)).as_flattened()));
/// # Ok::<(), wgconv::Error>(())
/// ```
///
/// # Errors
/// For a factor of 0 or more than 1024, and for channels that no tensor can have.
pub fn bilinear_weight(channels: usize, factor: usize) -> Result<ArrayD<f32>> {
    let (kernel, _) = geometry(factor)?;
    byte_count(OP, "channels", &[channels, kernel, kernel], u64::MAX)?;
    let centre = (kernel - 1) as f64 / 2.0;
    let tent = |tap: usize| 1.0 - (tap as f64 - centre).abs() / factor as f64;
    Ok(Array4::from_shape_fn((channels, 1, kernel, kernel), |(_, _, y, x)| (tent(y) * tent(x)) as f32).into_dyn())
}

/// Up-sampling by a transposed convolution that begins as bilinear interpolation and can be learned (Long et al. 2015,
/// <https://arxiv.org/abs/1411.4038>).
///
/// ```text
/// [N, C, H, W] -> transposed convolution, kernel 2f - f%2, stride f -> [N, C, H*f, W*f]
/// ```
///
/// Beyond the image stand zeros, so that the outermost pixels fade; inside it is bilinear interpolation with pixel centres.
#[derive(Clone, Debug)]
#[must_use]
pub struct FcnUpsample {
    options: ConvTranspose2d,
    weight: Tensor,
}

impl FcnUpsample {
    /// With the bilinear weights, each channel by itself.
    ///
    /// # Errors
    /// As [`bilinear_weight`], and errors of the device.
    pub fn bilinear(gpu: &Gpu, channels: usize, factor: usize) -> Result<Self> {
        Self::new(gpu, &bilinear_weight(channels, factor)?, factor, channels)
    }

    /// With the learned weight `{prefix}.weight`, `[C, C, k, k]`.
    ///
    /// # Errors
    /// For a factor of 0 or more than 1024; errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, channels: usize, factor: usize) -> Result<Self> {
        let (kernel, _) = geometry(factor)?;
        let weight = Loader::new(gpu, params, prefix).get("weight", &[channels, channels, kernel, kernel])?;
        Self::new(gpu, &weight, factor, 1)
    }

    fn new(gpu: &Gpu, weight: &ArrayD<f32>, factor: usize, groups: usize) -> Result<Self> {
        let (_, padding) = geometry(factor)?;
        let options = ConvTranspose2d::new().stride(factor).padding(padding).groups(groups);
        Ok(Self { options, weight: Tensor::from_array(gpu, weight)? })
    }

    /// Records the layer.
    ///
    /// # Errors
    /// As [`ConvTranspose2d`]'s.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.options.forward(x, &self.weight, None)
    }
}
