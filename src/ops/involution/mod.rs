//! Involution, and the layer that makes its kernels from the input.

pub(crate) mod choose;
pub(crate) mod fused;
pub(crate) mod layer;
pub(crate) mod parts;
pub(crate) mod problem;
mod tune;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::problem::expect_shape;
use crate::ops::options::{Padding, PerAxis};
use crate::ops::{Epilogue, same_gpu};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::run::{Call, Encoded};
use crate::tensor::Tensor;
use crate::tuning;
use problem::{OP, Problem};

/// The kernels of an involution. [`InvolutionKernel::Auto`] chooses by shape and adapter; another can be asked for by name and is an
/// error where it cannot take the problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvolutionKernel {
    /// The best by rule.
    #[default]
    Auto,
    /// One thread makes a few channels at one position; any problem on any adapter.
    Direct,
    /// One thread makes several channels at four neighbouring positions of a row; kernels 3, 5 or 7 wide, stride 1 or 2 and dilation 1
    /// along rows, on any adapter.
    Rows,
    /// The same with stride 1 along rows, where the lanes of a subgroup ask their neighbours for the input instead of loading it again;
    /// adapters whose subgroup size is fixed.
    Subgroup,
}

impl InvolutionKernel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            InvolutionKernel::Auto => "auto",
            InvolutionKernel::Direct => "direct",
            InvolutionKernel::Rows => "rows",
            InvolutionKernel::Subgroup => "subgroup",
        }
    }
}

/// Involution (Li et al. 2021, <https://arxiv.org/abs/2103.06255>): each position has a kernel of its own, which the channels of a group share.
///
/// ```text
/// y[n,c,i,j] = act(bias[c] + sum over kh, kw of w[n,g(c),kh,kw,i,j] * x[n,c, i*stride - pad + kh*dilation, j*stride - pad + kw*dilation]
///     + residual[n,c,i,j])
/// ```
///
/// Here `g(c) = c / (C/groups)`. Taps in the padding are left out.
///
/// The weight is an argument; [`InvolutionLayer`](crate::InvolutionLayer) makes it from the input.
///
/// # Shapes
/// Input `[N, C, H, W]`, weight `[N, groups, Kh, Kw, Ho, Wo]` or the same data as `[N, groups*Kh*Kw, Ho, Wo]` (then
/// [`kernel_size`](Self::kernel_size) tells Kh and Kw), bias `[C]`, residual and output `[N, C, Ho, Wo]` with
/// `Ho = floor((H + pads - dilation*(Kh-1) - 1) / stride) + 1`, and Wo likewise.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, Involution2d, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 64, 56, 56)))?;
/// let w = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 4 * 7 * 7, 56, 56)))?;
/// let y = Involution2d::new().kernel_size(7).padding(3).groups(4).forward(&x, &w, None)?;
/// assert_eq!(y.shape(), [1, 64, 56, 56]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Involution2d {
    kernel_size: Option<PerAxis<2>>,
    stride: PerAxis<2>,
    dilation: PerAxis<2>,
    padding: Padding<2>,
    groups: usize,
    activation: Activation,
    residual: Option<Tensor>,
    kernel: InvolutionKernel,
}

impl Default for Involution2d {
    fn default() -> Self {
        Self {
            kernel_size: None,
            stride: 1.into(),
            dilation: 1.into(),
            padding: Padding::Valid,
            groups: 1,
            activation: Activation::Identity,
            residual: None,
            kernel: InvolutionKernel::Auto,
        }
    }
}

impl Involution2d {
    /// Stride 1, dilation 1, no padding, one group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Extents of the kernel. A weight with six axes tells them by itself.
    pub fn kernel_size(mut self, kernel_size: impl Into<PerAxis<2>>) -> Self {
        self.kernel_size = Some(kernel_size.into());
        self
    }

    /// Elements between neighbouring windows.
    pub fn stride(mut self, stride: impl Into<PerAxis<2>>) -> Self {
        self.stride = stride.into();
        self
    }

    /// Elements between neighbouring taps.
    pub fn dilation(mut self, dilation: impl Into<PerAxis<2>>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Padding by zeros: a number, one for each axis, (start, end) for each axis, or a named rule.
    pub fn padding(mut self, padding: impl Into<Padding<2>>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Number of groups of channels that share a kernel.
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
    pub fn kernel(mut self, kernel: InvolutionKernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for shapes and options that do not fit each other.
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Vec<usize>> {
        Problem::new(self, input, weight).map(|problem| problem.output_shape())
    }

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// As [`Involution2d::output_shape`], and where the kernel asked for cannot take the problem.
    pub fn plan(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Plan> {
        choose::plan(&Problem::new(self, input, weight)?, &self.epilogue(false), self.kernel, profile)
    }

    /// The kernels that can take the problem on such an adapter, best first.
    ///
    /// # Errors
    /// As [`Involution2d::output_shape`].
    pub fn candidates(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Vec<InvolutionKernel>> {
        Problem::new(self, input, weight).map(|problem| choose::candidates(&problem, profile))
    }

    /// The kernel's extents: those of the options, or a weight's of six axes; both have to agree.
    fn kernel_for(&self, weight: &[usize]) -> Result<PerAxis<2>> {
        match (self.kernel_size, weight) {
            (None, &[_, _, kh, kw, _, _]) => Ok(PerAxis([kh, kw])),
            (Some(kernel), _) => Ok(kernel),
            (None, &[_, _, _, _]) => Err(Error::invalid(OP, "kernel_size", "one, for a weight with four axes", "none")),
            (None, _) => {
                let expected = "[N, groups, Kh, Kw, Ho, Wo] or [N, groups*Kh*Kw, Ho, Wo]";
                Err(Error::invalid(OP, "weight", expected, format!("{weight:?}")))
            }
        }
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
        expect_shape(OP, "bias", bias.map(Tensor::shape), &[problem.channels as usize])?;
        expect_shape(OP, "residual", self.residual.as_ref().map(Tensor::shape), &problem.output_shape())?;
        same_gpu(OP, &args)?;
        let gpu = input.gpu().clone();
        let plan = self.tuned(&gpu, &problem, (input.shape(), weight.shape()), bias.is_some())?;
        run(Call { gpu, plan, args: &args })
    }

    /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing. Under
    /// [`Tuning::Measure`](crate::Tuning::Measure) they are chosen here.
    ///
    /// # Errors
    /// As [`Involution2d::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, input: &[usize], weight: &[usize], has_bias: bool) -> Result<()> {
        let problem = Problem::new(self, input, weight)?;
        crate::run::warm_up(gpu, &self.tuned(gpu, &problem, (input, weight), has_bias)?)
    }

    /// Records the involution.
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
    /// As [`Involution2d::forward`], and for an output of another shape or one that aliases an argument.
    pub fn forward_into(&self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, output: &Tensor) -> Result<()> {
        self.with_call((input, weight, bias), |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`Involution2d::forward`].
    pub fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        input: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Encoded> {
        self.with_call((input, weight, bias), |call| call.encode(encoder))
    }
}
