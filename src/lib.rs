//! The whole convolution family on any GPU through WebGPU.

mod error;
mod gpu;
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
pub use ops::conv::{Conv, Conv1d, Conv2d, Conv3d, ConvKernel};
pub use ops::options::{Border, Padding, PerAxis};
pub use plan::Plan;
pub use profile::{AdapterClass, Profile};
pub use record::KernelTime;
pub use run::Encoded;
pub use tensor::Tensor;

pub use ndarray;
pub use wgpu;
