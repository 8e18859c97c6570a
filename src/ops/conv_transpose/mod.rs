//! Transposed convolution in one, two and three dimensions.

pub(crate) mod choose;
pub(crate) mod direct;
pub(crate) mod problem;
mod tune;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::problem::expect_shape;
use crate::ops::options::PerAxis;
use crate::ops::{Epilogue, same_gpu};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::run::{Call, Encoded};
use crate::tensor::Tensor;
use crate::tuning;
use problem::Problem;

/// Transposed convolution over `[N, C, L]`.
pub type ConvTranspose1d = ConvTranspose<1>;
/// Transposed convolution over `[N, C, H, W]`.
pub type ConvTranspose2d = ConvTranspose<2>;
/// Transposed convolution over `[N, C, D, H, W]`.
pub type ConvTranspose3d = ConvTranspose<3>;

/// The kernels of a transposed convolution. [`ConvTransposeKernel::Auto`] chooses by shape and adapter; another can be asked for by
/// name and is an error where it cannot take the problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvTransposeKernel {
    /// The best by rule.
    #[default]
    Auto,
    /// One thread makes a few outputs of a row; any problem on any adapter.
    Direct,
    /// One dense implicit GEMM for each output phase, all in one dispatch, with weights handed round a subgroup; adapters whose subgroup
    /// size is fixed.
    Subgroup,
}

impl ConvTransposeKernel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ConvTransposeKernel::Auto => "auto",
            ConvTransposeKernel::Direct => "direct",
            ConvTransposeKernel::Subgroup => "subgroup",
        }
    }
}

/// Padding of a transposed convolution along each of `R` axes, as (start, end): so many positions are cut off the output.
///
/// A number cuts all sides alike, `[usize; R]` both sides of each axis, `[(usize, usize); R]` the start and the end of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sides<const R: usize>(pub [(usize, usize); R]);

impl<const R: usize> From<usize> for Sides<R> {
    fn from(both: usize) -> Self {
        Self([(both, both); R])
    }
}

impl<const R: usize> From<[usize; R]> for Sides<R> {
    fn from(sides: [usize; R]) -> Self {
        Self(sides.map(|side| (side, side)))
    }
}

impl<const R: usize> From<[(usize, usize); R]> for Sides<R> {
    fn from(sides: [(usize, usize); R]) -> Self {
        Self(sides)
    }
}

/// Transposed convolution over `R` spatial axes, the gradient of a convolution as an operator of its own (Zeiler et al. 2010; Dumoulin
/// and Visin 2016; PyTorch's `conv_transpose1d`, `conv_transpose2d`, `conv_transpose3d`):
///
/// ```text
/// y[n,o,q] = act(bias[o] + sum over c in o's group, i, k with i*stride - pad_start + k*dilation = q of x[n,c,i] * w[c, o mod C_out/G, k]
/// + residual[n,o,q])
/// ```
///
/// An output that no tap reaches is the bias, through residual and activation.
///
/// # Shapes
/// Input `[N, C_in, spatial...]`, weight `[C_in, C_out/groups, kernel...]`, bias `[C_out]`, residual and output `[N, C_out, out...]`
/// with `out = (in-1)*stride - pad_start - pad_end + dilation*(kernel-1) + output_padding + 1`.
///
/// # Example
/// ```no_run
/// use wgconv::{ConvTranspose2d, Gpu, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 21, 64, 64)))?;
/// let w = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((21, 21, 4, 4)))?;
/// let y = ConvTranspose2d::new().stride(2).padding(1).forward(&x, &w, None)?;
/// assert_eq!(y.shape(), [1, 21, 128, 128]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ConvTranspose<const R: usize> {
    stride: PerAxis<R>,
    padding: Sides<R>,
    output_padding: PerAxis<R>,
    dilation: PerAxis<R>,
    groups: usize,
    activation: Activation,
    residual: Option<Tensor>,
    kernel: ConvTransposeKernel,
}

impl<const R: usize> Default for ConvTranspose<R> {
    fn default() -> Self {
        const { assert!(R >= 1 && R <= 3, "a transposed convolution has 1 to 3 spatial axes") };
        Self {
            stride: 1.into(),
            padding: 0.into(),
            output_padding: 0.into(),
            dilation: 1.into(),
            groups: 1,
            activation: Activation::Identity,
            residual: None,
            kernel: ConvTransposeKernel::Auto,
        }
    }
}

impl<const R: usize> ConvTranspose<R> {
    /// Stride 1, dilation 1, no padding, no output padding, one group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Output positions between the contributions of neighbouring inputs.
    pub fn stride(mut self, stride: impl Into<PerAxis<R>>) -> Self {
        self.stride = stride.into();
        self
    }

    /// Positions cut off the output: a number, one for each axis, or (start, end) for each axis.
    pub fn padding(mut self, padding: impl Into<Sides<R>>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Positions added at the end of each axis, less than the larger of stride and dilation there: a strided convolution gives several
    /// input extents the same output extent, and this says which of them comes back.
    pub fn output_padding(mut self, output_padding: impl Into<PerAxis<R>>) -> Self {
        self.output_padding = output_padding.into();
        self
    }

    /// Output positions between neighbouring taps.
    pub fn dilation(mut self, dilation: impl Into<PerAxis<R>>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Number of groups; as many as input channels make it depthwise.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
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

    /// Asks for a kernel by name.
    pub fn kernel(mut self, kernel: ConvTransposeKernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for shapes and options that do not fit each other,
    /// [`Error::TooLarge`](crate::Error::TooLarge) for a tensor beyond 32-bit indices.
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Vec<usize>> {
        Problem::new(self, input, weight).map(|problem| problem.output_shape)
    }

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// As [`ConvTranspose::output_shape`], and where the kernel asked for cannot take the problem.
    pub fn plan(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Plan> {
        choose::plan(&Problem::new(self, input, weight)?, &self.epilogue(false), self.kernel, profile)
    }

    /// The kernels that can take the problem on such an adapter, best first.
    ///
    /// # Errors
    /// As [`ConvTranspose::output_shape`].
    pub fn candidates(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Vec<ConvTransposeKernel>> {
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
    /// As [`ConvTranspose::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, input: &[usize], weight: &[usize], has_bias: bool) -> Result<()> {
        let problem = Problem::new(self, input, weight)?;
        crate::run::warm_up(gpu, &self.tuned(gpu, &problem, (input, weight), has_bias)?)
    }

    /// Records the transposed convolution.
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
    /// As [`ConvTranspose::forward`], and for an output of another shape or one that aliases an argument.
    pub fn forward_into(&self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, output: &Tensor) -> Result<()> {
        self.with_call((input, weight, bias), |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`ConvTranspose::forward`].
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
    /// As [`ConvTranspose::forward`].
    pub fn prepare(&self, weight: &Tensor, input: &[usize]) -> Result<Tensor> {
        let problem = Problem::new(self, input, weight.shape())?;
        let plan = self.tuned(weight.gpu(), &problem, (input, weight.shape()), false)?;
        crate::run::prepare(weight, &plan)
    }
}
