//! The whole convolution family on any GPU through WebGPU: standard, dilated, grouped, depthwise, pointwise and transposed convolution in one, two
//! and three dimensions, deformable convolution v1 and v2, and involution, with PyTorch's names, layouts and semantics.
//!
//! Open a [`Gpu`], put arrays into [`Tensor`]s, and call operators. They are recorded and run together when a result is read.
//!
//! ```no_run
//! use wgconv::{Activation, Conv2d, Gpu, Tensor, ndarray::Array};
//! let gpu = Gpu::new_blocking()?;
//! let x = Tensor::from_array(&gpu, &Array::<f32, _>::ones((1, 64, 56, 56)))?;
//! let w = Tensor::from_array(&gpu, &Array::<f32, _>::ones((64, 2, 3, 3)))?;
//! let conv = Conv2d::new().padding(1).groups(32).activation(Activation::Relu);
//! println!("{}", conv.plan(gpu.profile(), x.shape(), w.shape())?);
//! let y = conv.forward(&x, &w, None)?;
//! assert_eq!(y.to_array()?.shape(), [1, 64, 56, 56]);
//! # Ok::<(), wgconv::Error>(())
//! ```
//!
//! - Convolutions: [`Conv1d`], [`Conv2d`], [`Conv3d`]; transposed: [`ConvTranspose1d`], [`ConvTranspose2d`], [`ConvTranspose3d`]; [`DeformConv2d`];
//!   [`SeparableConv2d`], depthwise and pointwise in one; [`Involution2d`] and [`InvolutionLayer`].
//! - What a network needs besides: [`MaxPool`], [`AvgPool`], [`GlobalAvgPool`], [`Linear`], [`Softmax`], [`Add`], [`Mul`], [`Activation`],
//!   [`fold_batch_norm`], [`Concat`], [`Narrow`], [`PixelShuffle`], [`UpsampleNearest`].
//! - Every operator has `forward`, `forward_into` (the caller's output), `encode` (the caller's command encoder), `output_shape` and `plan`
//!   (which kernel, without a GPU).
//! - [`analysis`] works out, without a GPU, what a network sees (receptive fields, holes of dilated stacks) and what operators cost.
//! - [`blocks`] has what the papers build from them: bottlenecks, separable and dilated blocks, deformable layers, WaveNet, attention.
//! - [`mod@reference`] computes the same on the CPU in double precision.
//!
//! An application that has a `wgpu::Device` shares it by [`Gpu::from_wgpu`], wraps its buffers by [`Tensor::from_buffer`] and encodes into its own
//! command encoder.

pub mod analysis;
pub mod blocks;
mod builder;
mod cache;
mod error;
mod faults;
#[doc(hidden)]
pub mod fuzzing;
mod gpu;
mod guard;
#[cfg(test)]
mod instances;
mod kernel;
mod ops;
mod params;
mod pipeline_cache;
mod plan;
mod pool;
mod profile;
mod read;
mod record;
pub mod reference;
mod run;
mod shaders;
mod tensor;
mod tuning;
mod workgroup;

pub use builder::GpuBuilder;
pub use cache::Cache;
pub use error::{Error, Result};
#[doc(hidden)]
pub use faults::Fault;
pub use gpu::{Counters, Gpu};
pub use ops::activation::Activation;
pub use ops::batch_norm::{BatchNorm, fold_batch_norm};
pub use ops::conv::{Conv, Conv1d, Conv2d, Conv3d, ConvKernel};
pub use ops::conv_transpose::{
    ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeKernel, Sides,
};
pub use ops::deform::{DeformConv2d, DeformKernel};
pub use ops::elementwise::{Add, Mul};
pub use ops::involution::layer::{InvolutionLayer, InvolutionLayerWeights};
pub use ops::involution::{Involution2d, InvolutionKernel};
pub use ops::linear::{Linear, LinearKernel};
pub use ops::options::{Border, Padding, PerAxis};
pub use ops::pool::{
    AvgPool, AvgPool1d, AvgPool2d, AvgPool3d, GlobalAvgPool, MaxPool, MaxPool1d, MaxPool2d, MaxPool3d,
};
pub use ops::rearrange::{Concat, Narrow, PixelShuffle, UpsampleNearest};
pub use ops::separable::{SeparableConv2d, SeparableKernel, SeparableWeights};
pub use ops::softmax::Softmax;
pub use plan::Plan;
pub use profile::{AdapterClass, Profile};
pub use record::KernelTime;
pub use run::Encoded;
pub use tensor::Tensor;
pub use tuning::Tuning;

pub use ndarray;
pub use wgpu;
