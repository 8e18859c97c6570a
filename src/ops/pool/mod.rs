//! Max, average and global average pooling.

pub(crate) mod global;
pub(crate) mod problem;
pub(crate) mod window;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::problem::name;
use crate::ops::options::PerAxis;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::run::{Call, Encoded};
use crate::tensor::Tensor;
pub use global::GlobalAvgPool;
use problem::{Problem, Window};
use window::Reduction;

/// Max pooling over `[N, C, L]`.
pub type MaxPool1d = MaxPool<1>;
/// Max pooling over `[N, C, H, W]`.
pub type MaxPool2d = MaxPool<2>;
/// Max pooling over `[N, C, D, H, W]`.
pub type MaxPool3d = MaxPool<3>;
/// Average pooling over `[N, C, L]`.
pub type AvgPool1d = AvgPool<1>;
/// Average pooling over `[N, C, H, W]`.
pub type AvgPool2d = AvgPool<2>;
/// Average pooling over `[N, C, D, H, W]`.
pub type AvgPool3d = AvgPool<3>;

/// The greatest value of each window, over `R` spatial axes (PyTorch's `max_pool1d`, `max_pool2d`, `max_pool3d`):
///
/// `y[n,c,q] = act(max over taps k inside the input of x[n, c, q*stride - padding + k*dilation])`
///
/// A NaN in the window gives NaN; a window that has no tap inside the input, which dilation makes possible, gives minus infinity.
///
/// # Shapes
/// Input `[N, C, spatial...]`, output `[N, C, out...]` with `out = floor((in + 2*padding - dilation*(kernel-1) - 1) / stride) + 1`,
/// rounded up in ceil mode.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, MaxPool2d, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 64, 112, 112)))?;
/// let y = MaxPool2d::new(3).stride(2).padding(1).forward(&x)?;
/// assert_eq!(y.shape(), [1, 64, 56, 56]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MaxPool<const R: usize> {
    window: Window<R>,
    activation: Activation,
}

/// The mean of each window, over `R` spatial axes (PyTorch's `avg_pool1d`, `avg_pool2d`, `avg_pool3d`):
///
/// `y[n,c,q] = act(sum over taps k inside the input of x[n, c, q*stride - padding + k] / count)`
///
/// The count is that of the window's positions in the input and its padding, or in the input alone
/// ([`count_include_pad(false)`](AvgPool::count_include_pad)). What a window of ceil mode has beyond the padding never counts.
///
/// # Shapes
/// As [`MaxPool`], with dilation 1.
///
/// # Example
/// ```no_run
/// use wgconv::{AvgPool2d, Gpu, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 64, 55, 55)))?;
/// let y = AvgPool2d::new(2).ceil_mode(true).count_include_pad(false).forward(&x)?;
/// assert_eq!(y.shape(), [1, 64, 28, 28]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AvgPool<const R: usize> {
    window: Window<R>,
    include_pad: bool,
    activation: Activation,
}

impl<const R: usize> MaxPool<R> {
    /// A window; its stride is the kernel, without padding, dilation 1, in floor mode.
    pub fn new(kernel: impl Into<PerAxis<R>>) -> Self {
        Self { window: Window::new(kernel.into()), activation: Activation::Identity }
    }

    /// Elements between neighbouring taps.
    pub fn dilation(mut self, dilation: impl Into<PerAxis<R>>) -> Self {
        self.window.dilation = dilation.into();
        self
    }

    fn problem(&self, input: &[usize]) -> Result<Problem> {
        Problem::new(name::<R>(["max_pool1d", "max_pool2d", "max_pool3d"]), &self.window, input)
    }

    fn reduction(&self) -> Reduction {
        Reduction::Max
    }
}

impl<const R: usize> AvgPool<R> {
    /// A window; its stride is the kernel, without padding, in floor mode, padding counted.
    pub fn new(kernel: impl Into<PerAxis<R>>) -> Self {
        Self { window: Window::new(kernel.into()), include_pad: true, activation: Activation::Identity }
    }

    /// Whether the mean counts what a window has in the padding. The default is that it does.
    pub fn count_include_pad(mut self, include: bool) -> Self {
        self.include_pad = include;
        self
    }

    fn problem(&self, input: &[usize]) -> Result<Problem> {
        Problem::new(name::<R>(["avg_pool1d", "avg_pool2d", "avg_pool3d"]), &self.window, input)
    }

    fn reduction(&self) -> Reduction {
        Reduction::Avg { include_pad: self.include_pad }
    }
}

/// What both pools have alike.
macro_rules! pool {
    ($pool:ident) => {
        impl<const R: usize> $pool<R> {
            /// Elements between neighbouring windows; the kernel where it is not given.
            pub fn stride(mut self, stride: impl Into<PerAxis<R>>) -> Self {
                self.window.stride = Some(stride.into());
                self
            }

            /// Elements on both sides of each axis that no tap reads; at most half the kernel.
            pub fn padding(mut self, padding: impl Into<PerAxis<R>>) -> Self {
                self.window.padding = padding.into();
                self
            }

            /// Rounds the number of windows up, as long as the last one starts in the input or the padding before it.
            pub fn ceil_mode(mut self, ceil_mode: bool) -> Self {
                self.window.ceil_mode = ceil_mode;
                self
            }

            /// Applied last.
            pub fn activation(mut self, activation: Activation) -> Self {
                self.activation = activation;
                self
            }

            /// The output's shape, without a GPU.
            ///
            /// # Errors
            /// [`Error::Invalid`](crate::Error::Invalid) for shapes and options that do not fit each other.
            pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
                self.problem(input).map(|problem| problem.output_shape)
            }

            /// What a call would dispatch on such an adapter, without a GPU.
            ///
            /// # Errors
            /// As [`Self::output_shape`], and where the adapter cannot hold one row of windows.
            pub fn plan(&self, profile: &Profile, input: &[usize]) -> Result<Plan> {
                window::plan(&self.problem(input)?, self.reduction(), self.activation, profile)
            }

            fn with_call<T>(&self, input: &Tensor, run: impl FnOnce(Call<'_>) -> Result<T>) -> Result<T> {
                let gpu = input.gpu().clone();
                let plan = self.plan(gpu.profile(), input.shape())?;
                run(Call { gpu, plan, args: &[("input", Some(input))] })
            }

            /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing.
            ///
            /// # Errors
            /// As [`Self::plan`], and errors of the device.
            pub fn warm_up(&self, gpu: &Gpu, input: &[usize]) -> Result<()> {
                crate::run::warm_up(gpu, &self.plan(gpu.profile(), input)?)
            }

            /// Records the pooling.
            ///
            /// # Errors
            /// As [`Self::plan`], and errors of the device.
            pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
                self.with_call(input, |call| call.forward())
            }

            /// The same into the caller's output, which may not share the input's buffer.
            ///
            /// # Errors
            /// As [`Self::forward`], and for an output of another shape or one that aliases the input.
            pub fn forward_into(&self, input: &Tensor, output: &Tensor) -> Result<()> {
                self.with_call(input, |call| call.forward_into(output))
            }

            /// The same into the caller's command encoder.
            ///
            /// # Errors
            /// As [`Self::forward`].
            pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, input: &Tensor) -> Result<Encoded> {
                self.with_call(input, |call| call.encode(encoder))
            }
        }
    };
}

pool!(MaxPool);
pool!(AvgPool);
