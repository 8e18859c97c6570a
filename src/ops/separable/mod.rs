//! Depthwise separable convolution: a depthwise and a pointwise convolution, in one pass or in two.

pub(crate) mod choose;
pub(crate) mod fused;
pub(crate) mod problem;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv2d;
use crate::ops::conv::problem::expect_shape;
use crate::ops::options::{Padding, PerAxis};
use crate::ops::{Epilogue, same_gpu};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::run::{Call, Encoded, check_output, warm_up};
use crate::tensor::Tensor;
use problem::{OP, Problem, named};

/// The ways to make a [`SeparableConv2d`]. [`SeparableKernel::Auto`] chooses by shape and adapter; the other two can be asked for by name,
/// which is an error where they cannot take the problem. [`Tuning`](crate::Tuning) chooses the kernels of the unfused parts, not the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SeparableKernel {
    /// The best by rule: fused on GPUs where at most two tiles hold the output channels, since each of them makes the depthwise part anew.
    #[default]
    Auto,
    /// One [`Conv2d`] after the other, each with its own best kernel.
    Unfused,
    /// Both in one pass through workgroup memory; from four output channels on.
    Fused,
}

/// The weights of a [`SeparableConv2d`].
#[derive(Clone, Copy, Debug)]
pub struct SeparableWeights<'a> {
    /// Of the depthwise convolution, `[C, 1, Kh, Kw]`.
    pub depthwise: &'a Tensor,
    /// Its bias `[C]`.
    pub depthwise_bias: Option<&'a Tensor>,
    /// Of the pointwise convolution, `[O, C, 1, 1]`.
    pub pointwise: &'a Tensor,
    /// Its bias `[O]`.
    pub pointwise_bias: Option<&'a Tensor>,
}

// Slots of a call's arguments.
const INPUT: usize = 0;
const DEPTHWISE: usize = 1;
const DEPTHWISE_BIAS: usize = 2;
const POINTWISE: usize = 3;
const POINTWISE_BIAS: usize = 4;
const RESIDUAL: usize = 5;

type Arguments<'a> = [(&'static str, Option<&'a Tensor>); 6];

/// Depthwise separable convolution (Howard et al. 2017, <https://arxiv.org/abs/1704.04861>): a depthwise K x K and the pointwise 1x1
/// behind it, what lies between them kept out of memory where that pays:
///
/// `u[n,c,q] = depthwise_activation(depthwise_bias[c] + sum over k of depthwise[c,k] * x[n, c, q*stride - pad + k*dilation])`,
/// `y[n,o,q] = activation(pointwise_bias[o] + sum over c of pointwise[o,c] * u[n,c,q] + residual[n,o,q])`.
///
/// # Shapes
/// Input `[N, C, H, W]`, weights as [`SeparableWeights`] has them, residual and output `[N, O, Ho, Wo]`, extents as of [`Conv2d`].
///
/// # Example
/// ```no_run
/// use wgconv::{Activation, Gpu, SeparableConv2d, SeparableWeights, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 64, 112, 112)))?;
/// let depthwise = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((64, 1, 3, 3)))?;
/// let pointwise = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((128, 64, 1, 1)))?;
/// let weights =
///     SeparableWeights { depthwise: &depthwise, depthwise_bias: None, pointwise: &pointwise, pointwise_bias: None };
/// let conv = SeparableConv2d::new().stride(2).padding(1).depthwise_activation(Activation::Relu).activation(Activation::Relu);
/// assert_eq!(conv.forward(&x, &weights)?.shape(), [1, 128, 56, 56]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SeparableConv2d {
    stride: PerAxis<2>,
    dilation: PerAxis<2>,
    padding: Padding<2>,
    depthwise_activation: Activation,
    activation: Activation,
    residual: Option<Tensor>,
    kernel: SeparableKernel,
}

impl Default for SeparableConv2d {
    fn default() -> Self {
        Self {
            stride: 1.into(),
            dilation: 1.into(),
            padding: Padding::Valid,
            depthwise_activation: Activation::Identity,
            activation: Activation::Identity,
            residual: None,
            kernel: SeparableKernel::Auto,
        }
    }
}

impl SeparableConv2d {
    /// Stride 1, dilation 1, no padding, no activations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Elements between neighbouring windows of the depthwise part.
    pub fn stride(mut self, stride: impl Into<PerAxis<2>>) -> Self {
        self.stride = stride.into();
        self
    }

    /// Elements between neighbouring taps of the depthwise part.
    pub fn dilation(mut self, dilation: impl Into<PerAxis<2>>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Zeros around the input, as of [`Conv2d`].
    pub fn padding(mut self, padding: impl Into<Padding<2>>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Applied between the two parts.
    pub fn depthwise_activation(mut self, activation: Activation) -> Self {
        self.depthwise_activation = activation;
        self
    }

    /// Applied last.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Added before the last activation; exactly the output's shape.
    pub fn residual(mut self, residual: &Tensor) -> Self {
        self.residual = Some(residual.clone());
        self
    }

    /// Asks for a way by name.
    pub fn kernel(mut self, kernel: SeparableKernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for shapes and options that do not fit each other.
    pub fn output_shape(&self, input: &[usize], depthwise: &[usize], pointwise: &[usize]) -> Result<Vec<usize>> {
        Problem::new(self, input, depthwise, pointwise).map(|problem| problem.pointwise.output_shape)
    }

    /// What a call would dispatch on such an adapter, without a GPU: one plan where it is fused, else those of the two parts.
    ///
    /// # Errors
    /// As [`SeparableConv2d::output_shape`], and where the kernel asked for cannot take the problem.
    pub fn plan(
        &self,
        profile: &Profile,
        input: &[usize],
        depthwise: &[usize],
        pointwise: &[usize],
    ) -> Result<Vec<Plan>> {
        let problem = Problem::new(self, input, depthwise, pointwise)?;
        Ok(match choose::choose(&problem, self.kernel, profile)? {
            Some(fused) => vec![fused.plan(&self.epilogues([false; 2]))],
            None => vec![
                self.depthwise_part(problem.channels()).plan(profile, input, depthwise).map_err(named)?,
                self.pointwise_part().plan(profile, &problem.depthwise.output_shape, pointwise).map_err(named)?,
            ],
        })
    }

    /// The kernels that can take the problem on such an adapter, best first.
    ///
    /// # Errors
    /// As [`SeparableConv2d::output_shape`].
    pub fn candidates(
        &self,
        profile: &Profile,
        input: &[usize],
        depthwise: &[usize],
        pointwise: &[usize],
    ) -> Result<Vec<SeparableKernel>> {
        let problem = Problem::new(self, input, depthwise, pointwise)?;
        Ok(choose::candidates(&problem, profile).0)
    }

    /// The depthwise convolution by itself.
    fn depthwise_part(&self, channels: usize) -> Conv2d {
        let options = Conv2d::new().stride(self.stride).dilation(self.dilation).padding(self.padding);
        options.groups(channels).activation(self.depthwise_activation)
    }

    /// The pointwise convolution by itself.
    fn pointwise_part(&self) -> Conv2d {
        let options = Conv2d::new().activation(self.activation);
        match &self.residual {
            Some(residual) => options.residual(residual),
            None => options,
        }
    }

    /// What ends the depthwise and the pointwise part.
    fn epilogues(&self, [depthwise_bias, pointwise_bias]: [bool; 2]) -> [Epilogue; 2] {
        let has_residual = self.residual.is_some();
        [
            Epilogue { has_bias: depthwise_bias, has_residual: false, activation: self.depthwise_activation },
            Epilogue { has_bias: pointwise_bias, has_residual, activation: self.activation },
        ]
    }

    /// Checks all arguments of a call.
    fn check<'a>(&'a self, input: &'a Tensor, weights: &SeparableWeights<'a>) -> Result<(Problem, Arguments<'a>)> {
        let SeparableWeights { depthwise, depthwise_bias, pointwise, pointwise_bias } = *weights;
        let problem = Problem::new(self, input.shape(), depthwise.shape(), pointwise.shape())?;
        let residual = self.residual.as_ref();
        let shape = |tensor: Option<&'a Tensor>| tensor.map(Tensor::shape);
        expect_shape(OP, "depthwise_bias", shape(depthwise_bias), &[problem.channels()])?;
        expect_shape(OP, "pointwise_bias", shape(pointwise_bias), &[problem.pointwise.c_out as usize])?;
        expect_shape(OP, "residual", shape(residual), &problem.pointwise.output_shape)?;
        let args = [
            ("input", Some(input)),
            ("depthwise", Some(depthwise)),
            ("depthwise_bias", depthwise_bias),
            ("pointwise", Some(pointwise)),
            ("pointwise_bias", pointwise_bias),
            ("residual", residual),
        ];
        same_gpu(OP, &args)?;
        Ok((problem, args))
    }

    /// The fused call; none where the parts run one after the other.
    fn call<'a>(&self, problem: &Problem, args: &'a Arguments<'a>, gpu: &Gpu) -> Result<Option<Call<'a>>> {
        let biases = [DEPTHWISE_BIAS, POINTWISE_BIAS].map(|bias| args[bias].1.is_some());
        let fused = choose::choose(problem, self.kernel, gpu.profile())?;
        Ok(fused.map(|fused| Call { gpu: gpu.clone(), plan: fused.plan(&self.epilogues(biases)), args }))
    }

    /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing. `has_biases`: of the depthwise and of the
    /// pointwise part.
    ///
    /// # Errors
    /// As [`SeparableConv2d::plan`], and errors of the device.
    pub fn warm_up(
        &self,
        gpu: &Gpu,
        input: &[usize],
        depthwise: &[usize],
        pointwise: &[usize],
        has_biases: [bool; 2],
    ) -> Result<()> {
        let problem = Problem::new(self, input, depthwise, pointwise)?;
        match choose::choose(&problem, self.kernel, gpu.profile())? {
            Some(fused) => warm_up(gpu, &fused.plan(&self.epilogues(has_biases))),
            None => {
                let depthwise_part = self.depthwise_part(problem.channels());
                depthwise_part.warm_up(gpu, input, depthwise, has_biases[0]).map_err(named)?;
                let between = &problem.depthwise.output_shape;
                self.pointwise_part().warm_up(gpu, between, pointwise, has_biases[1]).map_err(named)
            }
        }
    }

    /// Records the convolution.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for arguments that do not fit each other, [`Error::TooLarge`](crate::Error::TooLarge)
    /// for what the adapter cannot hold, and errors of the device.
    pub fn forward(&self, input: &Tensor, weights: &SeparableWeights<'_>) -> Result<Tensor> {
        let (problem, args) = self.check(input, weights)?;
        match self.call(&problem, &args, input.gpu())? {
            Some(call) => call.forward(),
            None => {
                let depthwise = self.depthwise_part(problem.channels());
                let between = depthwise.forward(input, weights.depthwise, weights.depthwise_bias).map_err(named)?;
                self.pointwise_part().forward(&between, weights.pointwise, weights.pointwise_bias).map_err(named)
            }
        }
    }

    /// The same into the caller's output, which may share no buffer with an argument.
    ///
    /// # Errors
    /// As [`SeparableConv2d::forward`], and for an output of another shape or one that aliases an argument.
    pub fn forward_into(&self, input: &Tensor, weights: &SeparableWeights<'_>, output: &Tensor) -> Result<()> {
        let (problem, args) = self.check(input, weights)?;
        match self.call(&problem, &args, input.gpu())? {
            Some(call) => call.forward_into(output),
            None => {
                check_output(OP, input.gpu(), &problem.pointwise.output_shape, &args, output)?;
                let depthwise = self.depthwise_part(problem.channels());
                let between = depthwise.forward(input, weights.depthwise, weights.depthwise_bias).map_err(named)?;
                let pointwise = self.pointwise_part();
                pointwise.forward_into(&between, weights.pointwise, weights.pointwise_bias, output).map_err(named)
            }
        }
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`SeparableConv2d::forward`].
    pub fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        input: &Tensor,
        weights: &SeparableWeights<'_>,
    ) -> Result<Encoded> {
        let (problem, args) = self.check(input, weights)?;
        match self.call(&problem, &args, input.gpu())? {
            Some(call) => call.encode(encoder),
            None => {
                let (depthwise, pointwise) = (self.depthwise_part(problem.channels()), self.pointwise_part());
                let between = depthwise.encode(encoder, input, weights.depthwise, weights.depthwise_bias);
                let between = between.map_err(named)?;
                let last = pointwise.encode(encoder, between.output(), weights.pointwise, weights.pointwise_bias);
                Ok(last.map_err(named)?.after(between))
            }
        }
    }
}
