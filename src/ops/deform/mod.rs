//! Deformable convolution, version 1 and version 2.

pub(crate) mod blocks;
pub(crate) mod choose;
pub(crate) mod direct;
pub(crate) mod few;
pub(crate) mod fused;
pub(crate) mod problem;
pub(crate) mod sliced;
mod tune;

use crate::error::Result;
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

// Slots of a call's arguments, in torchvision's order.
const INPUT: usize = 0;
const OFFSET: usize = 1;
const WEIGHT: usize = 2;
const BIAS: usize = 3;
const MASK: usize = 4;
const RESIDUAL: usize = 5;

/// The kernels of a deformable convolution. [`DeformKernel::Auto`] chooses by shape and adapter; another can be asked for by name and
/// is an error where it cannot take the problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeformKernel {
    /// The best by rule.
    #[default]
    Auto,
    /// One thread makes a few output channels at one position; any problem on any adapter, without scratch memory.
    Direct,
    /// Samples a slice of positions into columns, multiplies it, then the next slice; adapters whose subgroup size is fixed. The columns
    /// take no more scratch memory than input and offsets do (or one tile of positions); a copy of the input comes on top.
    Sliced,
    /// Samples into the tiles of a GEMM through workgroup memory, without columns: the kernel for GPUs. Blocks of four channels must lie in
    /// one offset group; a copy of the input in such blocks is its scratch memory.
    Fused,
    /// Samples and multiplies in one pass without columns: up to four input channels a group, adapters whose subgroup size is fixed.
    FewChannels,
}

impl DeformKernel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            DeformKernel::Auto => "auto",
            DeformKernel::Direct => "direct",
            DeformKernel::Sliced => "sliced",
            DeformKernel::Fused => "fused",
            DeformKernel::FewChannels => "few channels",
        }
    }
}

/// Deformable convolution, torchvision's `deform_conv2d`: every tap of every position is displaced by an offset of its own (version 1:
/// Dai et al. 2017, <https://arxiv.org/abs/1703.06211>) and, with a mask, modulated (version 2: Zhu et al. 2019,
/// <https://arxiv.org/abs/1811.11168>).
///
/// ```text
/// y[n,o,p] = act(bias[o] + sum over c, k of w[o,c,k] * mask[n,d,k,p] * x[n, g(o)*C/G + c, p*stride - pad + k*dilation + offset[n,d,k,p]]
///     + residual[n,o,p])
/// ```
///
/// Here `d` is the offset group of the input channel.
///
/// `x` between its elements is interpolated bilinearly, with neighbours outside the image counted as zero. A point with `y <= -1`,
/// `y >= H`, `x <= -1`, `x >= W`, or with a coordinate that is NaN or infinite, samples zero. A coordinate is one f32 addition of
/// the grid's position and the offset; H and W are therefore at most 2^24, padding counted, up to where f32 has every position.
///
/// # Shapes
/// Input `[N, C_in, H, W]`, offset `[N, 2*offset_groups*Kh*Kw, Ho, Wo]` (of each tap dy, then dx), weight
/// `[C_out, C_in/groups, Kh, Kw]`, bias `[C_out]`, mask `[N, offset_groups*Kh*Kw, Ho, Wo]`, residual and output `[N, C_out, Ho, Wo]` with
/// `Ho = floor((H + pads - dilation*(Kh-1) - 1) / stride) + 1`, and Wo likewise. Groups of the weight and of the offsets are
/// independent of each other.
///
/// # Example
/// ```no_run
/// use wgconv::{DeformConv2d, Gpu, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 128, 56, 56)))?;
/// let offset = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 2 * 9, 56, 56)))?;
/// let mask = Tensor::from_array(&gpu, &Array::<f32, _>::ones((1, 9, 56, 56)))?;
/// let w = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((128, 128, 3, 3)))?;
/// let y = DeformConv2d::new().padding(1).forward(&x, &offset, &w, None, Some(&mask))?;
/// assert_eq!(y.shape(), [1, 128, 56, 56]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct DeformConv2d {
    stride: PerAxis<2>,
    dilation: PerAxis<2>,
    padding: Padding<2>,
    groups: usize,
    offset_groups: usize,
    activation: Activation,
    residual: Option<Tensor>,
    kernel: DeformKernel,
}

impl Default for DeformConv2d {
    fn default() -> Self {
        Self {
            stride: 1.into(),
            dilation: 1.into(),
            padding: Padding::Valid,
            groups: 1,
            offset_groups: 1,
            activation: Activation::Identity,
            residual: None,
            kernel: DeformKernel::Auto,
        }
    }
}

/// The tensors of a call: input, offset, weight, bias, mask.
type Tensors<'a> = (&'a Tensor, &'a Tensor, &'a Tensor, Option<&'a Tensor>, Option<&'a Tensor>);

impl DeformConv2d {
    /// Stride 1, dilation 1, no padding, one weight group, one offset group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Elements between neighbouring windows.
    pub fn stride(mut self, stride: impl Into<PerAxis<2>>) -> Self {
        self.stride = stride.into();
        self
    }

    /// Elements between neighbouring taps before they are displaced.
    pub fn dilation(mut self, dilation: impl Into<PerAxis<2>>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Padding with zeros: a number, one for each axis, (start, end) for each axis, or a named rule.
    pub fn padding(mut self, padding: impl Into<Padding<2>>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Number of groups of the weight.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Number of groups of input channels that have offsets and masks of their own; a divisor of the input channels.
    pub fn offset_groups(mut self, offset_groups: usize) -> Self {
        self.offset_groups = offset_groups;
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
    pub fn kernel(mut self, kernel: DeformKernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// The output's shape, without a GPU. Offset and mask have the same last two extents.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for shapes and options that do not fit each other, and for more than 2^24 rows or columns,
    /// padding counted.
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Vec<usize>> {
        Problem::new(self, input, weight).map(|problem| problem.output_shape)
    }

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// As [`DeformConv2d::output_shape`], and where the kernel asked for cannot take the problem.
    pub fn plan(&self, profile: &Profile, input: &[usize], weight: &[usize], has_mask: bool) -> Result<Plan> {
        choose::plan(&Problem::new(self, input, weight)?, &self.epilogue(false), has_mask, self.kernel, profile)
    }

    /// The kernels that can take the problem on such an adapter, best first.
    ///
    /// # Errors
    /// As [`DeformConv2d::output_shape`].
    pub fn candidates(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Vec<DeformKernel>> {
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
        (has_bias, has_mask): (bool, bool),
    ) -> Result<Plan> {
        let asked = tune::Asked { problem, epilogue: self.epilogue(has_bias), input, weight, has_mask };
        tuning::plan(gpu, &asked, self.kernel)
    }

    fn with_call<T>(
        &self,
        (input, offset, weight, bias, mask): Tensors<'_>,
        run: impl FnOnce(Call<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut problem = Problem::new(self, input.shape(), weight.shape())?;
        problem.input_wrapped = input.buffer.wrapped();
        let residual = self.residual.as_ref();
        expect_shape(OP, "offset", Some(offset.shape()), &problem.offset_shape)?;
        expect_shape(OP, "bias", bias.map(Tensor::shape), &[problem.c_out as usize])?;
        expect_shape(OP, "mask", mask.map(Tensor::shape), &problem.mask_shape)?;
        expect_shape(OP, "residual", residual.map(Tensor::shape), &problem.output_shape)?;
        let args = [
            ("input", Some(input)),
            ("offset", Some(offset)),
            ("weight", Some(weight)),
            ("bias", bias),
            ("mask", mask),
            ("residual", residual),
        ];
        same_gpu(OP, &args)?;
        let gpu = input.gpu().clone();
        let plan = self.tuned(&gpu, &problem, (input.shape(), weight.shape()), (bias.is_some(), mask.is_some()))?;
        run(Call { gpu, plan, args: &args })
    }

    /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing. Under
    /// [`Tuning::Measure`](crate::Tuning::Measure) they are chosen here.
    ///
    /// # Errors
    /// As [`DeformConv2d::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, input: &[usize], weight: &[usize], has_bias: bool, has_mask: bool) -> Result<()> {
        let mut problem = Problem::new(self, input, weight)?;
        let plan = self.tuned(gpu, &problem, (input, weight), (has_bias, has_mask))?;
        crate::run::warm_up(gpu, &plan)?;
        if plan.has_uniform_arrays() {
            // Another kernel takes an input in the caller's buffer.
            problem.input_wrapped = true;
            crate::run::warm_up(gpu, &self.tuned(gpu, &problem, (input, weight), (has_bias, has_mask))?)?;
        }
        Ok(())
    }

    /// Records the convolution; version 2 where there is a mask.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for arguments that do not fit each other, [`Error::TooLarge`](crate::Error::TooLarge)
    /// for what the adapter cannot hold, and errors of the device.
    pub fn forward(
        &self,
        input: &Tensor,
        offset: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.with_call((input, offset, weight, bias, mask), |call| call.forward())
    }

    /// The same into the caller's output, which may share no buffer with an argument.
    ///
    /// # Errors
    /// As [`DeformConv2d::forward`], and for an output of another shape or one that aliases an argument.
    pub fn forward_into(
        &self,
        input: &Tensor,
        offset: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        mask: Option<&Tensor>,
        output: &Tensor,
    ) -> Result<()> {
        self.with_call((input, offset, weight, bias, mask), |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`DeformConv2d::forward`].
    pub fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        input: &Tensor,
        offset: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        mask: Option<&Tensor>,
    ) -> Result<Encoded> {
        self.with_call((input, offset, weight, bias, mask), |call| call.encode(encoder))
    }

    /// The weight with its packed copy made ahead, for inputs of this shape. The caller promises that the weight's values do not change
    /// as long as what comes back is used; a weight that only this crate can write needs no promise, its packed copy is kept by itself.
    ///
    /// # Errors
    /// As [`DeformConv2d::plan`].
    pub fn prepare(&self, weight: &Tensor, input: &[usize]) -> Result<Tensor> {
        let problem = Problem::new(self, input, weight.shape())?;
        let plan = self.tuned(weight.gpu(), &problem, (input, weight.shape()), (false, false))?;
        crate::run::prepare(weight, &plan)
    }
}
