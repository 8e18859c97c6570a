//! What the papers build from the operators: layers and blocks that load by the names of PyTorch's state dicts.
//!
//! A block is loaded once, its batch norms folded, and then called as often as one likes. Weights come from [`Parameters`]: a
//! `HashMap` of arrays by name, or [`Seeded`] random values to try things out.
//!
//! ```no_run
//! use wgconv::blocks::{Bottleneck, BottleneckConfig, Seeded};
//! use wgconv::{Gpu, Tensor};
//! let gpu = Gpu::new_blocking()?;
//! let block = Bottleneck::load(&gpu, &Seeded(1), "layer1.0", BottleneckConfig::new(256, 64, 256))?;
//! let y = block.forward(&Tensor::zeros(&gpu, &[1, 256, 56, 56])?)?;
//! # Ok::<(), wgconv::Error>(())
//! ```

mod attention;
mod bottleneck;
mod conv_norm;
mod deform;
mod dilated;
mod fcn;
mod involution;
mod mobile;
mod parameters;
mod pointnet;
mod rfb;
mod separable;
mod wavenet;

pub use attention::{LocalAttention, LocalAttentionConfig};
pub use bottleneck::{Bottleneck, BottleneckConfig, Middle};
pub use conv_norm::{ConvNorm, two_groups};
pub use deform::{DeformConfig, DeformLayer};
pub use dilated::{Aspp, AsppConfig, Duc, HDC_1_2_3, HDC_1_2_5, Hdc};
pub use fcn::{FcnUpsample, bilinear_weight};
pub use involution::{InvolutionConfig, load_involution};
pub use mobile::{InvertedResidual, MobileNetV1Block, XceptionUnit};
pub use parameters::{Parameters, Seeded};
pub use pointnet::PointNet;
pub use rfb::{Rfb, RfbConfig};
pub use separable::{Inception7x7, Separable, SeparableConv};
pub use wavenet::{WaveNet, WaveNetConfig, WaveNetOutput, WaveNetState};

use crate::error::{Error, Result};

/// `whole / part`, where it divides.
fn quotient(op: &'static str, argument: &'static str, whole: usize, part: usize) -> Result<usize> {
    if part == 0 || whole == 0 || !whole.is_multiple_of(part) {
        return Err(Error::invalid(op, argument, format!("a divisor of {whole}"), part));
    }
    Ok(whole / part)
}

/// The padding that keeps an odd kernel's output as large as its input.
pub(crate) fn same(kernel: usize, dilation: usize) -> usize {
    (kernel.saturating_sub(1) / 2).saturating_mul(dilation)
}
