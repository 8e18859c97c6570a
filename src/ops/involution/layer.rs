//! The involution layer: involution with a weight made from its own input.

use ndarray::ArrayViewD;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::Conv2d;
use crate::ops::conv::problem::expect_shape;
use crate::ops::options::PerAxis;
use crate::ops::pool::AvgPool2d;
use crate::ops::same_gpu;
use crate::plan::Plan;
use crate::run::{Call, Encoded, warm_up};
use crate::tensor::Tensor;

use super::problem::Problem;
use super::{Involution2d, InvolutionKernel, fused};

const OP: &str = "involution_layer";

/// The weights of an [`InvolutionLayer`], on the host, named as in the authors' code: `conv1` with its batch norm, and `conv2`.
#[derive(Clone, Debug)]
pub struct InvolutionLayerWeights<'a> {
    /// Of the 1x1 convolution that reduces the channels: `[Cr, C, 1, 1]`, without bias.
    pub reduce: ArrayViewD<'a, f32>,
    /// The batch norm behind it, vectors `[Cr]`.
    pub norm: BatchNorm<'a>,
    /// Of the 1x1 convolution that spans the kernels: `[groups*Kh*Kw, Cr, 1, 1]`.
    pub span: ArrayViewD<'a, f32>,
    /// Its bias `[groups*Kh*Kw]`.
    pub span_bias: Option<ArrayViewD<'a, f32>>,
}

/// The layer of RedNet (Li et al. 2021, <https://arxiv.org/abs/2103.06255>): an involution whose kernels are made from its input,
///
/// `w = span(relu(norm(reduce(pool(x))))) + span_bias`, `y = act(involution2d(x, w) + residual)`,
///
/// where `reduce` and `span` are 1x1 convolutions and `pool` is average pooling with kernel and stride `stride`, in ceil mode and
/// without counting padding, left out where the stride is 1. The batch norm is folded into `reduce` when the layer is made.
///
/// # Shapes
/// Input `[N, C, H, W]`, weights as [`InvolutionLayerWeights`] has them, output and residual `[N, C, Ho, Wo]` as of
/// [`Involution2d`]. Its extents must be those of the pooled input, `ceil(H / stride)`: for an odd kernel that is a padding of
/// `dilation*(K-1)/2`.
///
/// # Example
/// ```no_run
/// use wgconv::ndarray::{Array1, Array4};
/// use wgconv::{BatchNorm, Gpu, Involution2d, InvolutionLayer, InvolutionLayerWeights, Tensor};
/// let gpu = Gpu::new_blocking()?;
/// let (reduce, span) = (Array4::<f32>::zeros((16, 64, 1, 1)).into_dyn(), Array4::<f32>::zeros((4 * 49, 16, 1, 1)).into_dyn());
/// let (zeros, ones) = (Array1::<f32>::zeros(16).into_dyn(), Array1::<f32>::ones(16).into_dyn());
/// let norm = BatchNorm { gamma: ones.view(), beta: zeros.view(), mean: zeros.view(), var: ones.view(), eps: 1e-5 };
/// let weights = InvolutionLayerWeights { reduce: reduce.view(), norm, span: span.view(), span_bias: None };
/// let layer = InvolutionLayer::new(&gpu, Involution2d::new().kernel_size(7).padding(3).groups(4), &weights)?;
/// let x = Tensor::from_array(&gpu, &Array4::<f32>::zeros((1, 64, 56, 56)))?;
/// assert_eq!(layer.forward(&x)?.shape(), [1, 64, 56, 56]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct InvolutionLayer {
    involution: Involution2d,
    kernel_size: PerAxis<2>,
    channels: usize,
    reduce: Tensor,
    reduce_bias: Tensor,
    span: Tensor,
    /// The same as `involution/fused.wgsl` reads it.
    packed_span: Tensor,
    span_bias: Option<Tensor>,
    /// Asked for; else by rule.
    fused: Option<bool>,
}

impl InvolutionLayer {
    /// Folds the batch norm and uploads the weights. The involution's options need [`kernel_size`](Involution2d::kernel_size).
    ///
    /// # Errors
    /// [`Error::Invalid`] for weights that do not fit each other or the options, and errors of the device.
    pub fn new(gpu: &Gpu, involution: Involution2d, weights: &InvolutionLayerWeights<'_>) -> Result<Self> {
        let Some(kernel_size) = involution.kernel_size else {
            return Err(Error::invalid(OP, "kernel_size", "one in the involution's options", "none"));
        };
        let PerAxis([kh, kw]) = kernel_size;
        let shape = weights.reduce.shape();
        let &[reduced, channels, 1, 1] = shape else {
            return Err(Error::invalid(OP, "reduce", "[Cr, C, 1, 1]", format!("{shape:?}")));
        };
        let spanned = involution.groups.checked_mul(kh).and_then(|count| count.checked_mul(kw));
        let spanned = spanned.filter(|&count| count > 0).ok_or_else(|| {
            let got = format!("{} groups of {kh}x{kw}", involution.groups);
            Error::invalid(OP, "kernel_size", "groups times kernel size neither 0 nor too large", got)
        })?;
        expect_shape(OP, "span", Some(weights.span.shape()), &[spanned, reduced, 1, 1])?;
        expect_shape(OP, "span_bias", weights.span_bias.as_ref().map(ArrayViewD::shape), &[spanned])?;
        let (reduce, reduce_bias) = weights.norm.fold(weights.reduce.view(), None)?;
        let span_bias = weights.span_bias.as_ref().map(|bias| Tensor::from_array(gpu, bias)).transpose()?;
        Ok(Self {
            kernel_size,
            channels,
            reduce: Tensor::from_array(gpu, &reduce)?,
            reduce_bias: Tensor::from_array(gpu, &reduce_bias)?,
            span: Tensor::from_array(gpu, &weights.span)?,
            packed_span: Tensor::from_array(gpu, &fused::pack(&weights.span, (involution.groups, [kh, kw])))?,
            span_bias,
            involution,
            fused: None,
        })
    }

    /// Applied last.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.involution = self.involution.activation(activation);
        self
    }

    /// Added before the activation; exactly the output's shape.
    pub fn residual(mut self, residual: &Tensor) -> Self {
        self.involution = self.involution.residual(residual);
        self
    }

    /// Asks for a kernel of the involution by name.
    pub fn kernel(mut self, kernel: InvolutionKernel) -> Self {
        self.involution = self.involution.kernel(kernel);
        self
    }

    /// Asks that the kernels are made within the involution, so that they never lie in memory, or that they are not. By default they
    /// are on GPUs, where that can be done and no kernel of the involution was asked for: widths 3, 5 and 7, strides 1 and 2 and dilation 1
    /// along rows.
    pub fn fused(mut self, fused: bool) -> Self {
        self.fused = Some(fused);
        self
    }

    /// Whether a call makes its kernels within the involution.
    ///
    /// # Errors
    /// As [`InvolutionLayer::forward`].
    pub fn is_fused(&self, input: &[usize]) -> Result<bool> {
        self.takes_fused(&self.problem(input)?, input)
    }

    fn takes_fused(&self, problem: &Problem, input: &[usize]) -> Result<bool> {
        let profile = self.reduce.gpu().profile();
        let fits = fused::fits(problem, self.reduce.shape()[0] as u64, profile);
        match self.fused {
            Some(true) if !fits => {
                let expected = "a layer whose kernels can be made within the involution on this adapter";
                let got = format!("true with {:?} and input {input:?}", self.involution);
                Err(Error::invalid(OP, "fused", expected, got))
            }
            Some(asked) => Ok(asked),
            None => Ok(fits && self.involution.kernel == InvolutionKernel::Auto && fused::leads(profile)),
        }
    }

    /// The output's shape.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input that does not fit weights and options.
    pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.problem(input).map(|problem| problem.output_shape())
    }

    /// The involution's problem for an input, all checked.
    fn problem(&self, input: &[usize]) -> Result<Problem> {
        let (problem, _) = Problem::of_input(&self.involution, input, self.kernel_size)?;
        if input[1] != self.channels {
            return Err(Error::invalid(OP, "input", format!("{} channels", self.channels), format!("{input:?}")));
        }
        let output = problem.output_shape();
        let PerAxis(stride) = self.involution.stride;
        let pooled = [input[2].div_ceil(stride[0]), input[3].div_ceil(stride[1])];
        if output[2..] != pooled {
            let expected = format!("one that gives the extents {pooled:?} of the pooled input");
            return Err(Error::invalid(OP, "padding", expected, format!("one that gives {:?}", &output[2..])));
        }
        Ok(problem)
    }

    /// The weight `[N, groups*Kh*Kw, Ho, Wo]` that the layer makes from this input.
    ///
    /// # Errors
    /// As [`InvolutionLayer::forward`].
    pub fn weight(&self, input: &Tensor) -> Result<Tensor> {
        self.problem(input.shape())?;
        self.spanned(input)
    }

    /// The same for an input that was checked.
    fn spanned(&self, input: &Tensor) -> Result<Tensor> {
        Conv2d::new().forward(&self.reduced(input)?, &self.span, self.span_bias.as_ref())
    }

    /// What the kernels are spanned from, `[N, Cr, Ho, Wo]`, for an input that was checked.
    fn reduced(&self, input: &Tensor) -> Result<Tensor> {
        let pooled = self.pool().map_or(Ok(input.clone()), |pool| pool.forward(input))?;
        self.reducing().forward(&pooled, &self.reduce, Some(&self.reduce_bias))
    }

    /// None where the stride is 1.
    fn pool(&self) -> Option<AvgPool2d> {
        let PerAxis(stride) = self.involution.stride;
        (stride != [1, 1]).then(|| AvgPool2d::new(stride).ceil_mode(true).count_include_pad(false))
    }

    fn reducing(&self) -> Conv2d {
        Conv2d::new().activation(Activation::Relu)
    }

    fn fused_plan(&self, problem: &Problem) -> Plan {
        let epilogue = self.involution.epilogue(self.span_bias.is_some());
        fused::plan(problem, self.reduce.shape()[0] as u64, &epilogue, self.reduce.gpu().profile())
    }

    /// Runs what is behind the reducing, all of it in one call.
    fn with_fused<T>(
        &self,
        problem: &Problem,
        (input, reduced): (&Tensor, &Tensor),
        run: impl FnOnce(Call<'_>) -> Result<T>,
    ) -> Result<T> {
        let plan = self.fused_plan(problem);
        let residual = self.involution.residual.as_ref();
        expect_shape(OP, "residual", residual.map(Tensor::shape), &plan.output)?;
        let tensors = [Some(input), Some(reduced), Some(&self.packed_span), self.span_bias.as_ref(), residual];
        let args: Vec<_> = fused::ARGUMENTS.into_iter().zip(tensors).collect();
        same_gpu(OP, &args)?;
        run(Call { gpu: input.gpu().clone(), plan, args: &args })
    }

    /// What a call would dispatch: the plans of its parts in order, from the pooling, where there is a stride, to the involution.
    ///
    /// # Errors
    /// As [`InvolutionLayer::forward`].
    pub fn plan(&self, input: &[usize]) -> Result<Vec<Plan>> {
        let (problem, profile) = (self.problem(input)?, self.reduce.gpu().profile());
        let (output, reduce, span) = (problem.output_shape(), self.reduce.shape(), self.span.shape());
        let of_channels = |channels: usize| [output[0], channels, output[2], output[3]];
        let pool = self.pool().map(|pool| pool.plan(profile, input)).transpose()?;
        let mut plans: Vec<Plan> = pool.into_iter().collect();
        plans.push(self.reducing().plan(profile, &of_channels(self.channels), reduce)?);
        if self.takes_fused(&problem, input)? {
            plans.push(self.fused_plan(&problem));
        } else {
            plans.push(Conv2d::new().plan(profile, &of_channels(reduce[0]), span)?);
            plans.push(self.involution.plan(profile, input, &of_channels(span[0]))?);
        }
        Ok(plans)
    }

    /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing.
    ///
    /// # Errors
    /// As [`InvolutionLayer::forward`].
    pub fn warm_up(&self, input: &[usize]) -> Result<()> {
        let (gpu, problem) = (self.reduce.gpu(), self.problem(input)?);
        let (output, reduce, span) = (problem.output_shape(), self.reduce.shape(), self.span.shape());
        let of_channels = |channels: usize| [output[0], channels, output[2], output[3]];
        self.pool().map_or(Ok(()), |pool| pool.warm_up(gpu, input))?;
        self.reducing().warm_up(gpu, &of_channels(self.channels), reduce, true)?;
        if self.takes_fused(&problem, input)? {
            return warm_up(gpu, &self.fused_plan(&problem));
        }
        Conv2d::new().warm_up(gpu, &of_channels(reduce[0]), span, self.span_bias.is_some())?;
        self.involution.warm_up(gpu, input, &of_channels(span[0]), false)
    }

    /// Records the layer.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input that does not fit weights and options, [`Error::TooLarge`] for what the adapter cannot hold,
    /// and errors of the device.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let problem = self.problem(input.shape())?;
        match self.takes_fused(&problem, input.shape())? {
            true => self.with_fused(&problem, (input, &self.reduced(input)?), |call| call.forward()),
            false => self.involution.forward(input, &self.spanned(input)?, None),
        }
    }

    /// The same into the caller's output, which may share no buffer with an argument.
    ///
    /// # Errors
    /// As [`InvolutionLayer::forward`], and for an output of another shape or one that aliases an argument.
    pub fn forward_into(&self, input: &Tensor, output: &Tensor) -> Result<()> {
        let problem = self.problem(input.shape())?;
        match self.takes_fused(&problem, input.shape())? {
            true => self.with_fused(&problem, (input, &self.reduced(input)?), |call| call.forward_into(output)),
            false => self.involution.forward_into(input, &self.spanned(input)?, None, output),
        }
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`InvolutionLayer::forward`].
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, input: &Tensor) -> Result<Encoded> {
        let problem = self.problem(input.shape())?;
        let is_fused = self.takes_fused(&problem, input.shape())?;
        let pooled = self.pool().map(|pool| pool.encode(encoder, input)).transpose()?;
        let pooled_or_input = pooled.as_ref().map_or(input, Encoded::output);
        let mut before = self.reducing().encode(encoder, pooled_or_input, &self.reduce, Some(&self.reduce_bias))?;
        if let Some(pooled) = pooled {
            before = before.after(pooled);
        }
        if is_fused {
            let last = self.with_fused(&problem, (input, before.output()), |call| call.encode(encoder))?;
            return Ok(last.after(before));
        }
        let spanned = Conv2d::new().encode(encoder, before.output(), &self.span, self.span_bias.as_ref())?;
        let last = self.involution.encode(encoder, input, spanned.output(), None)?;
        Ok(last.after(spanned).after(before))
    }
}
