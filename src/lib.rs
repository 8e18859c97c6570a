//! The whole convolution family on any GPU through WebGPU.

mod error;
mod gpu;
#[cfg(test)]
mod instances;
mod kernel;
mod ops;
mod params;
mod plan;
mod pool;
mod profile;
mod read;
mod record;
pub mod reference;
mod run;
mod shaders;
mod tensor;

pub use error::{Error, Result};
pub use gpu::{Counters, Gpu, GpuBuilder};
pub use ops::activation::Activation;
pub use ops::batch_norm::{BatchNorm, fold_batch_norm};
pub use ops::conv::{Conv, Conv1d, Conv2d, Conv3d, ConvKernel};
pub use ops::conv_transpose::{
    ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeKernel, Sides,
};
pub use ops::deform::{DeformConv2d, DeformKernel};
pub use ops::involution::layer::{InvolutionLayer, InvolutionLayerWeights};
pub use ops::involution::{Involution2d, InvolutionKernel};
pub use ops::elementwise::{Add, Mul};
pub use ops::linear::{Linear, LinearKernel};
pub use ops::options::{Border, Padding, PerAxis};
pub use ops::pool::{
    AvgPool, AvgPool1d, AvgPool2d, AvgPool3d, GlobalAvgPool, MaxPool, MaxPool1d, MaxPool2d, MaxPool3d,
};
pub use ops::softmax::Softmax;
pub use plan::Plan;
pub use profile::{AdapterClass, Profile};
pub use record::KernelTime;
pub use run::Encoded;
pub use tensor::Tensor;

pub use ndarray;
pub use wgpu;
