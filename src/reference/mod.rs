//! The CPU reference: every operator as plain loops over `f64` accumulators.
//!
//! This is what tests and the `verify` example compare the GPU with, and what a reader can check against the papers by
//! eye. So it is written for obvious correctness, not for speed (it does run on all cores), and it shares no index or
//! shape maths with the GPU operators: a mistake there must not be repeated here.
//!
//! Arrays are row-major `[N, C, ...]` with one to three spatial axes. Inputs are `f32` or `f64`; products and sums are
//! `f64`, and results are returned without rounding to the input type. Wrong shapes are errors, never panics.

pub mod activation;
pub mod batch_norm;
pub mod conv;
pub mod conv_transpose;
pub mod deform_conv;
pub mod elementwise;
pub mod involution;
pub mod linear;
pub mod pool;
pub mod rearrange;
mod shape;
pub mod softmax;

pub use activation::{ActivationKind, apply};
pub use batch_norm::{BatchNormParams, batch_norm};
pub use conv::{BorderMode, ConvSpec, conv, conv_at, conv_out_shape};
pub use conv_transpose::{ConvTransposeSpec, conv_transpose, conv_transpose_at, conv_transpose_out_shape};
pub use deform_conv::{DeformSpec, deform_conv2d, deform_conv2d_at, deform_conv2d_out_shape};
pub use elementwise::{add, epilogue, mul};
pub use involution::{
    InvolutionLayerSpec, InvolutionSpec, involution_layer, involution_layer_weight, involution2d, involution2d_at,
    involution2d_out_shape,
};
pub use linear::linear;
pub use pool::{AvgPoolSpec, MaxPoolSpec, avg_pool, avg_pool_out_shape, global_avg_pool, max_pool, max_pool_out_shape};
pub use rearrange::{concat, narrow, pixel_shuffle, upsample_nearest};
pub use softmax::softmax;

/// An element type the reference reads: `f32` or `f64`, both of which an `f64` holds exactly.
pub trait Real: Copy + Send + Sync + 'static {
    /// The same value as `f64`.
    fn to_f64(self) -> f64;
}

impl Real for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn to_f64(self) -> f64 {
        self
    }
}

/// What a reference operator refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// An array has the wrong number of axes or a wrong extent.
    #[error("{operator}: {message}")]
    Shape {
        /// The operator that was called.
        operator: &'static str,
        /// The argument, what was expected and what came.
        message: String,
    },
    /// An option has no meaning for these shapes: stride 0, groups that do not divide, a reflection wider than the input.
    #[error("{operator}: {message}")]
    Spec {
        /// The operator that was called.
        operator: &'static str,
        /// The option, what was expected and what came.
        message: String,
    },
    /// The output would have no elements along an axis.
    #[error("{operator}: the output is empty: {message}")]
    EmptyOutput {
        /// The operator that was called.
        operator: &'static str,
        /// The axis and the numbers that lead to it.
        message: String,
    },
    /// An extent or the number of elements is beyond what this machine can address.
    #[error("{operator}: {message}")]
    TooLarge {
        /// The operator that was called.
        operator: &'static str,
        /// What is too large.
        message: String,
    },
    /// The index of a single output element lies outside the output.
    #[error("{operator}: index {index:?} is outside the output shape {shape:?}")]
    Index {
        /// The operator that was called.
        operator: &'static str,
        /// The index that was given.
        index: Vec<usize>,
        /// The shape of the output.
        shape: Vec<usize>,
    },
}
