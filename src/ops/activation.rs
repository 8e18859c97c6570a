//! Activations, as epilogues and as operators of their own.

/// An activation function, PyTorch's definitions. NaN stays NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `x`.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` where it is positive, else the slope times `x`.
    LeakyRelu(f32),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * Phi(x)` with the exact normal distribution function.
    Gelu,
    /// GELU's approximation by tanh.
    GeluTanh,
    /// `clamp(x / 6 + 1/2, 0, 1)`.
    HardSigmoid,
    /// `x * hard_sigmoid(x)`.
    HardSwish,
}

impl Activation {
    /// Its number in `shaders/common/activation.wgsl`.
    pub(crate) fn code(self) -> u32 {
        match self {
            Activation::Identity => 0,
            Activation::Relu => 1,
            Activation::Relu6 => 2,
            Activation::LeakyRelu(_) => 3,
            Activation::Sigmoid => 4,
            Activation::Tanh => 5,
            Activation::Silu => 6,
            Activation::Gelu => 7,
            Activation::GeluTanh => 8,
            Activation::HardSigmoid => 9,
            Activation::HardSwish => 10,
        }
    }

    pub(crate) fn slope(self) -> f32 {
        match self {
            Activation::LeakyRelu(slope) => slope,
            _ => 0.0,
        }
    }

    /// The constant `ACT` of kernels that have the activation built in: 0 for those decided at run time.
    pub(crate) fn constant(self) -> u32 {
        if self.code() < 4 { 0 } else { self.code() }
    }
}
