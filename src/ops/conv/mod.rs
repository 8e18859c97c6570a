//! Convolution in one, two and three dimensions.

pub(crate) mod choose;
pub(crate) mod depthwise;
pub(crate) mod direct;
pub(crate) mod few;
pub(crate) mod grouped;
pub(crate) mod problem;
pub(crate) mod subgroup;
pub(crate) mod tiled;
pub(crate) mod tune;
pub(crate) mod winograd;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::options::{Border, Padding, PerAxis};
use crate::ops::{Epilogue, same_gpu};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::run::{Call, Encoded};
use crate::tensor::Tensor;
use crate::tuning;
use problem::{Problem, expect_shape};

/// Convolution over `[N, C, L]`.
pub type Conv1d = Conv<1>;
/// Convolution over `[N, C, H, W]`.
pub type Conv2d = Conv<2>;
/// Convolution over `[N, C, D, H, W]`.
pub type Conv3d = Conv<3>;

/// The kernels of a convolution. [`ConvKernel::Auto`] chooses by shape and adapter; another can be asked for by name and is an error
/// where it cannot take the problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvKernel {
    /// The best by rule.
    #[default]
    Auto,
    /// One thread makes a few outputs; any problem on any adapter.
    Direct,
    /// Implicit GEMM with weights handed round a subgroup; adapters whose subgroup size is fixed.
    Subgroup,
    /// The same for kernels of one element, reading the input as it lies; positions and channels in multiples of four.
    Pointwise,
    /// One input channel a group: rolling rows, kernels 3x3, 5x5, 7x7 and 3, 5, 7 along one axis, strides 1 and 2, any dilation.
    Depthwise,
    /// At most four input channels a group, as in a network's first layer, rows of 3, 5 or 7 taps, stride 1 or 2 along them; adapters
    /// whose subgroup size is fixed.
    FewChannels,
    /// 3x3 of stride and dilation 1 by Winograd's F(2x2, 3x3): 2.25 times fewer multiplications; channels in multiples of four.
    Winograd,
    /// The same by F(4x4, 3x3), 4 times fewer, with a larger error: only with [`Conv::fast_math`].
    WinogradF4,
    /// 2 to 16 input channels a group: kernels 3x3 and 3 along one axis, strides 1 and 2, dilation 1.
    Grouped,
    /// Implicit GEMM through workgroup memory, split along its inner dimension where the output is small: the kernel for GPUs.
    Tiled,
}

impl ConvKernel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ConvKernel::Auto => "auto",
            ConvKernel::Direct => "direct",
            ConvKernel::Subgroup => "subgroup",
            ConvKernel::Pointwise => "pointwise",
            ConvKernel::Depthwise => "depthwise",
            ConvKernel::FewChannels => "few channels",
            ConvKernel::Winograd => "winograd",
            ConvKernel::WinogradF4 => "winograd f4",
            ConvKernel::Grouped => "grouped",
            ConvKernel::Tiled => "tiled",
        }
    }
}

/// Cross-correlation as neural networks have it, over `R` spatial axes (PyTorch's `conv1d`, `conv2d`, `conv3d`):
///
/// `y[n,o,q] = act(bias[o] + sum over c, k of w[o,c,k] * x[n, g(o)*C/G + c, q*stride - pad + k*dilation] + residual[n,o,q])`
///
/// # Shapes
/// Input `[N, C_in, spatial...]`, weight `[C_out, C_in/groups, kernel...]`, bias `[C_out]`, residual and output
/// `[N, C_out, out...]` with `out = floor((in + pads - dilation*(kernel-1) - 1) / stride) + 1`.
///
/// # Example
/// ```no_run
/// use wgconv::{Activation, Conv2d, Gpu, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 64, 56, 56)))?;
/// let w = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((64, 2, 3, 3)))?;
/// let y = Conv2d::new().padding(1).groups(32).activation(Activation::Relu).forward(&x, &w, None)?;
/// assert_eq!(y.shape(), [1, 64, 56, 56]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Conv<const R: usize> {
    stride: PerAxis<R>,
    dilation: PerAxis<R>,
    padding: Padding<R>,
    groups: usize,
    border: Border,
    flip_kernel: bool,
    activation: Activation,
    residual: Option<Tensor>,
    fast_math: bool,
    kernel: ConvKernel,
}

impl<const R: usize> Default for Conv<R> {
    fn default() -> Self {
        const { assert!(R >= 1 && R <= 3, "one, two or three spatial axes") };
        Self {
            stride: 1.into(),
            dilation: 1.into(),
            padding: Padding::Valid,
            groups: 1,
            border: Border::Zeros,
            flip_kernel: false,
            activation: Activation::Identity,
            residual: None,
            fast_math: false,
            kernel: ConvKernel::Auto,
        }
    }
}

impl<const R: usize> Conv<R> {
    /// Stride 1, dilation 1, no padding, one group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Elements between neighbouring windows.
    pub fn stride(mut self, stride: impl Into<PerAxis<R>>) -> Self {
        self.stride = stride.into();
        self
    }

    /// Elements between neighbouring taps (Yu and Koltun 2016).
    pub fn dilation(mut self, dilation: impl Into<PerAxis<R>>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Padding: a number, one for each axis, (start, end) for each axis, or a named rule.
    pub fn padding(mut self, padding: impl Into<Padding<R>>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Number of groups; as many as input channels make it depthwise.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// What stands in the padding.
    pub fn border(mut self, border: Border) -> Self {
        self.border = border;
        self
    }

    /// True convolution: the kernel mirrored along every spatial axis.
    pub fn flip_kernel(mut self, flip: bool) -> Self {
        self.flip_kernel = flip;
        self
    }

    /// Applied last.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Added before the activation; exactly the output's shape.
    pub fn residual(mut self, residual: &Tensor) -> Self {
        self.residual = Some(residual.clone());
        self
    }

    /// Allows kernels with a larger error bound, now Winograd's F(4x4, 3x3): the error grows with the sum of the absolute values of
    /// the tile of 6x6 inputs, not of the window, and NaN and infinities take a slow path. A finite input that is large beside the others
    /// spoils outputs of its tile that do not have it in their window, and nothing detects that: an input of 1e6 two columns away has
    /// turned 0.967 into 1.094.
    pub fn fast_math(mut self, allow: bool) -> Self {
        self.fast_math = allow;
        self
    }

    /// Asks for a kernel by name.
    pub fn kernel(mut self, kernel: ConvKernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for shapes and options that do not fit each other.
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Vec<usize>> {
        Problem::new(self, input, weight).map(|problem| problem.output_shape)
    }

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// As [`Conv::output_shape`], and where the kernel asked for cannot take the problem.
    pub fn plan(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Plan> {
        choose::plan(&Problem::new(self, input, weight)?, &self.epilogue(false), self.kernel, profile)
    }

    /// The kernels that can take the problem on such an adapter, best first.
    ///
    /// # Errors
    /// As [`Conv::output_shape`].
    pub fn candidates(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Vec<ConvKernel>> {
        Problem::new(self, input, weight).map(|problem| choose::candidates(&problem, profile))
    }

    fn epilogue(&self, has_bias: bool) -> Epilogue {
        Epilogue { has_bias, has_residual: self.residual.is_some(), activation: self.activation }
    }

    /// The plan of a call on this device: as [`Self::plan`], or by what was measured there.
    fn tuned(
        &self,
        gpu: &Gpu,
        problem: &Problem,
        (input, weight): (&[usize], &[usize]),
        has_bias: bool,
    ) -> Result<Plan> {
        let asked = tune::Asked { problem, epilogue: self.epilogue(has_bias), input, weight };
        tuning::plan(gpu, &asked, self.kernel)
    }

    fn with_call<T>(
        &self,
        (input, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
        run: impl FnOnce(Call<'_>) -> Result<T>,
    ) -> Result<T> {
        let problem = Problem::new(self, input.shape(), weight.shape())?;
        let args =
            [("input", Some(input)), ("weight", Some(weight)), ("bias", bias), ("residual", self.residual.as_ref())];
        expect_shape(problem.op, "bias", bias.map(Tensor::shape), &[problem.c_out as usize])?;
        expect_shape(problem.op, "residual", self.residual.as_ref().map(Tensor::shape), &problem.output_shape)?;
        same_gpu(problem.op, &args)?;
        let gpu = input.gpu().clone();
        let plan = self.tuned(&gpu, &problem, (input.shape(), weight.shape()), bias.is_some())?;
        run(Call { gpu, plan, args: &args })
    }

    /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing. Under
    /// [`Tuning::Measure`](crate::Tuning::Measure) they are chosen here.
    ///
    /// # Errors
    /// As [`Conv::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, input: &[usize], weight: &[usize], has_bias: bool) -> Result<()> {
        let problem = Problem::new(self, input, weight)?;
        crate::run::warm_up(gpu, &self.tuned(gpu, &problem, (input, weight), has_bias)?)
    }

    /// Records the convolution.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for arguments that do not fit each other, [`Error::TooLarge`](crate::Error::TooLarge)
    /// for what the adapter cannot hold, and errors of the device.
    pub fn forward(&self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        self.with_call((input, weight, bias), |call| call.forward())
    }

    /// The same into the caller's output, which may share no buffer with an argument.
    ///
    /// # Errors
    /// As [`Conv::forward`], and for an output of another shape or one that aliases an argument.
    pub fn forward_into(&self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, output: &Tensor) -> Result<()> {
        self.with_call((input, weight, bias), |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        input: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Encoded> {
        self.with_call((input, weight, bias), |call| call.encode(encoder))
    }

    /// The weight with its packed copy made ahead, for inputs of this shape. The caller promises that the weight's values do not change
    /// as long as what comes back is used; a weight that only this crate can write needs no promise, its packed copy is kept by itself.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn prepare(&self, weight: &Tensor, input: &[usize]) -> Result<Tensor> {
        let problem = Problem::new(self, input, weight.shape())?;
        let plan = self.tuned(weight.gpu(), &problem, (input, weight.shape()), false)?;
        crate::run::prepare(weight, &plan)
    }
}
