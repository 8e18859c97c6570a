//! Activations, as epilogues and as operators of their own.
//!
//! What `shaders/common/activation.wgsl` promises against the exact function `f`, in units of `ulp = 2^-23`. It follows from WGSL's
//! accuracy of `exp` (`3 + 2|x|` ulp) and of division (2.5 ulp), from half an ulp for every other operation, and from the fitted
//! polynomials' errors. Each has an absolute part for results that are, or go through, denormal numbers, which may become zero. An
//! error `d` of the input adds `L*d`.
//!
//! | kind | relative to `f(x)` | absolute | `L` |
//! |---|---|---|---|
//! | identity, relu, relu6 | 0 | 2^-126 | 1 |
//! | leaky relu | 1 | 2^-126 max(1, slope, 1 - slope): a denormal may count as zero | max(1, slope) |
//! | sigmoid | 6 + 2 max(-x, 0) | 2^-125 | 1/4 |
//! | tanh | 9 | 2^-125 | 1 |
//! | silu | 7 + 2 max(-x, 0) | 2^-119 | 1.1 |
//! | gelu, x > 0 | 2 + (18 + 1.25 x^2) Phi(-x) / Phi(x) | 2^-121 | 1.13 |
//! | gelu, x < 0 | 19 + 1.25 x^2 | 2^-121 | 1.13 |
//! | gelu by tanh | 8 + 4.5 max(-z, 0), z = 1.5958 x + 0.0714 x^3 | 2^-119 | 1.13 |
//! | hard sigmoid | 4 | 2^-125 | 1/6 |
//! | hard swish | 5, and 0 for x >= 3 | 2^-123 | 1.5 |
//!
//! How they come about. Sigmoid is `e/(1+e)` with `e = exp(-|x|)`: the error of `e` enters with a factor of at most 1 below zero, and
//! of `e` above, where `e (3 + 2x)` stays below 3. Tanh beyond 0.625 is `(1-e)/(1+e)` with `e = exp(-2|x|)`: a relative error of `e`
//! enters with `2e/((1-e)(1+e))`, at most 0.63 and falling faster than `3 + 4|x|` grows. Gelu's tail is `exp(-a^2/2) g(a)`: `3 + a^2`
//! ulp of `exp`, `a^2/4` more from the rounding of its argument; `g` is a polynomial in `t = 1/(1 + 0.28a)` whose logarithm has a slope of
//! at most 2.85 in that of `t`, which is off by 3.5 ulp, and 3 ulp for the rest. Gelu by tanh has `z` right to 2.5 ulp.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::window::{window, window_elements};
use crate::params::params;
use crate::plan::{Instance, Params, Plan, Slot, Step};
use crate::profile::Profile;
use crate::run::{Call, Encoded};
use crate::tensor::{Tensor, byte_count};

params! {
    /// `Params` of `elementwise/activate.wgsl`.
    pub struct ActivateParams {
        count: u32, x_base: u32, y_base: u32, first: u32,
        activation: u32, slope: f32,
    }
}

pub(crate) fn instance() -> Instance {
    Instance::new("elementwise/activate.wgsl")
}

/// An activation function, PyTorch's definitions. NaN stays NaN.
///
/// Operators take it as their last step; [`Activation::forward`] applies it by itself.
///
/// # Example
/// ```no_run
/// use wgconv::{Activation, Gpu, Tensor, ndarray::array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &array![-1.0f32, 0.0, 1.0])?;
/// println!("{}", Activation::Gelu.forward(&x)?.to_array()?);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `x`.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)` (Sandler et al. 2018).
    Relu6,
    /// `x` where it is positive, else the slope times `x` (Maas et al. 2013).
    LeakyRelu(f32),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
    /// `x * sigmoid(x)`, also called swish (Ramachandran et al. 2017).
    Silu,
    /// `x * Phi(x)` with the exact normal distribution function (Hendrycks and Gimpel 2016).
    Gelu,
    /// GELU's approximation by tanh.
    GeluTanh,
    /// `clamp(x / 6 + 1/2, 0, 1)`.
    HardSigmoid,
    /// `x * hard_sigmoid(x)` (Howard et al. 2019).
    HardSwish,
}

const OP: &str = "activation";

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

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty shape, [`Error::TooLarge`] for one that no adapter can hold.
    pub fn plan(&self, profile: &Profile, input: &[usize]) -> Result<Plan> {
        if input.contains(&0) {
            return Err(Error::invalid(OP, "input", "no empty dimension", format!("{input:?}")));
        }
        let total = byte_count(OP, "input", input, u64::MAX)? / 4;
        let fits = total * 4 <= profile.max_binding;
        let each = if fits { total } else { window_elements(profile) / 4 * 4 };
        let steps = (0..total).step_by(each as usize).map(|first| self.step(profile, first, each, total)).collect();
        Ok(Plan { op: OP, kernel: "elementwise", output: input.to_vec(), pack: None, scratch: Vec::new(), steps }
            .cut(profile))
    }

    fn step(&self, profile: &Profile, first: u64, each: u64, total: u64) -> Step {
        let range = first..(first + each).min(total);
        let (x, x_base) = window(profile, Slot::Arg(0), range.clone(), total, false);
        let (y, y_base) = window(profile, Slot::Out, range.clone(), total, true);
        let count = (range.end - range.start) / 4;
        let params = ActivateParams {
            count: count as u32,
            x_base: x_base / 4,
            y_base: y_base / 4,
            first: (first / 4) as u32,
            activation: self.code(),
            slope: self.slope(),
        };
        Step {
            instance: instance(),
            params: Params::new(&params),
            bindings: vec![x, y],
            groups: count.div_ceil(64),
            work: count * 64,
        }
    }

    fn with_call<T>(&self, input: &Tensor, run: impl FnOnce(Call<'_>) -> Result<T>) -> Result<T> {
        let gpu = input.gpu().clone();
        let plan = self.plan(gpu.profile(), input.shape())?;
        run(Call { gpu, plan, args: &[("input", Some(input))] })
    }

    /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing.
    ///
    /// # Errors
    /// As [`Activation::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, input: &[usize]) -> Result<()> {
        crate::run::warm_up(gpu, &self.plan(gpu.profile(), input)?)
    }

    /// Records the activation of every element; the output has the input's shape.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.with_call(input, |call| call.forward())
    }

    /// The same into the caller's output, which may not share the input's buffer.
    ///
    /// # Errors
    /// As [`Activation::forward`], and for an output of another shape or one that aliases the input.
    pub fn forward_into(&self, input: &Tensor, output: &Tensor) -> Result<()> {
        self.with_call(input, |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`Activation::forward`].
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, input: &Tensor) -> Result<Encoded> {
        self.with_call(input, |call| call.encode(encoder))
    }
}
