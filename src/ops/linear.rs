//! The fully connected layer.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::problem::{Problem, expect_shape};
use crate::ops::conv::{Conv1d, ConvKernel, choose};
use crate::ops::window::{too_large, window, window_elements};
use crate::ops::{Epilogue, same_gpu};
use crate::params::params;
use crate::plan::{Binding, Instance, Params, Plan, Slot, Step};
use crate::profile::{AdapterClass, Profile};
use crate::run::{Call, Encoded};
use crate::tensor::{Tensor, byte_count};
use crate::tuning::{self, Tunable};

const OP: &str = "linear";

params! {
    /// `Params` of `linear.wgsl`.
    pub struct LinearParams {
        steps: u32, out: u32, m0: u32, m_count: u32,
        o0: u32, o_count: u32, x_base: u32, w_base: u32,
        y_base: u32, bias_base: u32, has_bias: u32, has_residual: u32,
        activation: u32, slope: f32,
    }
}

/// Threads of a workgroup of `linear.wgsl`.
pub(crate) const WORKGROUPS: [u32; 2] = [8, 64];
/// Rows that it takes.
pub(crate) const ROWS: [u32; 2] = [1, 4];

pub(crate) fn instance(workgroup: u32, rows: u32, vec: bool) -> Instance {
    Instance::new("linear.wgsl").with("WG", workgroup).with("R", rows).with("VEC", vec as u32)
}

/// The kernels of a linear layer. [`LinearKernel::Auto`] chooses by shape and adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinearKernel {
    /// The best by rule.
    #[default]
    Auto,
    /// A workgroup makes four features of a few rows, by dot products; any problem on any adapter, and the best for few rows.
    Dot,
    /// The implicit GEMM of a pointwise convolution whose positions are the rows; adapters whose subgroup size is fixed.
    Subgroup,
}

/// The fully connected layer over the last axis (PyTorch's `linear`):
///
/// `y[..,o] = act(bias[o] + sum over i of x[..,i] * w[o,i] + residual[..,o])`
///
/// # Shapes
/// Input `[.., in]` with any leading axes, weight `[out, in]`, bias `[out]`, residual and output `[.., out]`.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, Linear, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 2048)))?;
/// let w = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1000, 2048)))?;
/// let y = Linear::new().forward(&x, &w, None)?;
/// assert_eq!(y.shape(), [1, 1000]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Linear {
    activation: Activation,
    residual: Option<Tensor>,
    kernel: LinearKernel,
}

/// Checked sizes.
struct Sizes {
    rows: u64,
    inputs: u64,
    outputs: u64,
    output_shape: Vec<usize>,
}

impl Sizes {
    fn new(x: &[usize], w: &[usize]) -> Result<Self> {
        let &[outputs, inputs] = w else {
            return Err(Error::invalid(OP, "weight", "[out, in]", format!("{w:?}")));
        };
        if w.contains(&0) {
            return Err(Error::invalid(OP, "weight", "[out, in], none of them empty", format!("{w:?}")));
        }
        let leading = match x.split_last() {
            Some((&last, leading)) if last == inputs && !leading.contains(&0) => leading,
            _ => {
                let expected = format!("[.., {inputs}], none of them empty");
                return Err(Error::invalid(OP, "input", expected, format!("{x:?}")));
            }
        };
        let output_shape = [leading, &[outputs]].concat();
        for (argument, shape) in [("input", x), ("weight", w), ("output", &output_shape)] {
            byte_count(OP, argument, shape, u64::MAX)?;
        }
        let rows = leading.iter().product::<usize>() as u64;
        Ok(Self { rows, inputs: inputs as u64, outputs: outputs as u64, output_shape })
    }

    /// The same as a convolution over a single position, the rows as images.
    fn pointwise(&self) -> Result<Problem> {
        let (rows, inputs, outputs) = (self.rows as usize, self.inputs as usize, self.outputs as usize);
        let problem = Problem::new(&Conv1d::new(), &[rows, inputs, 1], &[outputs, inputs, 1])?;
        Ok(Problem { op: OP, output_shape: self.output_shape.clone(), ..problem })
    }
}

impl Linear {
    /// Without residual and activation.
    pub fn new() -> Self {
        Self::default()
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
    pub fn kernel(mut self, kernel: LinearKernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for shapes that do not fit each other.
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Vec<usize>> {
        Sizes::new(input, weight).map(|sizes| sizes.output_shape)
    }

    /// The kernels that can take the problem on such an adapter, best first.
    ///
    /// # Errors
    /// As [`Linear::output_shape`].
    pub fn candidates(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Vec<LinearKernel>> {
        candidates(&Sizes::new(input, weight)?, profile)
    }

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// As [`Linear::output_shape`], where the kernel asked for cannot take the problem, and [`Error::TooLarge`] where a binding of the
    /// adapter cannot hold one row.
    pub fn plan(&self, profile: &Profile, input: &[usize], weight: &[usize]) -> Result<Plan> {
        choose_plan(&Sizes::new(input, weight)?, &self.epilogue(false), self.kernel, profile)
    }

    fn epilogue(&self, has_bias: bool) -> Epilogue {
        Epilogue { has_bias, has_residual: self.residual.is_some(), activation: self.activation }
    }

    /// The plan of a call on this device: as [`Linear::plan`], or by what was measured there.
    fn tuned(&self, gpu: &Gpu, sizes: &Sizes, has_bias: bool) -> Result<Plan> {
        tuning::plan(gpu, &Asked { sizes, epilogue: self.epilogue(has_bias) }, self.kernel)
    }

    fn with_call<T>(
        &self,
        (input, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
        run: impl FnOnce(Call<'_>) -> Result<T>,
    ) -> Result<T> {
        let sizes = Sizes::new(input.shape(), weight.shape())?;
        let residual = self.residual.as_ref();
        let args = [("input", Some(input)), ("weight", Some(weight)), ("bias", bias), ("residual", residual)];
        expect_shape(OP, "bias", bias.map(Tensor::shape), &[sizes.outputs as usize])?;
        expect_shape(OP, "residual", residual.map(Tensor::shape), &sizes.output_shape)?;
        same_gpu(OP, &args)?;
        let gpu = input.gpu().clone();
        let plan = self.tuned(&gpu, &sizes, bias.is_some())?;
        run(Call { gpu, plan, args: &args })
    }

    /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing. Under
    /// [`Tuning::Measure`](crate::Tuning::Measure) they are chosen here.
    ///
    /// # Errors
    /// As [`Linear::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, input: &[usize], weight: &[usize], has_bias: bool) -> Result<()> {
        crate::run::warm_up(gpu, &self.tuned(gpu, &Sizes::new(input, weight)?, has_bias)?)
    }

    /// Records the layer.
    ///
    /// # Errors
    /// As [`Linear::plan`], and errors of the device.
    pub fn forward(&self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        self.with_call((input, weight, bias), |call| call.forward())
    }

    /// The same into the caller's output, which may share no buffer with an argument.
    ///
    /// # Errors
    /// As [`Linear::forward`], and for an output of another shape or one that aliases an argument.
    pub fn forward_into(&self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, output: &Tensor) -> Result<()> {
        self.with_call((input, weight, bias), |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`Linear::forward`].
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
    /// as long as what comes back is used.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn prepare(&self, weight: &Tensor, input: &[usize]) -> Result<Tensor> {
        let plan = self.tuned(weight.gpu(), &Sizes::new(input, weight.shape())?, false)?;
        crate::run::prepare(weight, &plan)
    }
}

/// The plan of a problem with the kernel asked for, or the best.
fn choose_plan(sizes: &Sizes, epilogue: &Epilogue, kernel: LinearKernel, profile: &Profile) -> Result<Plan> {
    let offered = candidates(sizes, profile)?;
    let kernel = if kernel == LinearKernel::Auto { offered[0] } else { kernel };
    if !offered.contains(&kernel) {
        let expected = format!("one that can take the problem on this adapter: {offered:?}");
        return Err(Error::invalid(OP, "kernel", expected, format!("{kernel:?}")));
    }
    if kernel == LinearKernel::Subgroup {
        return choose::plan(&sizes.pointwise()?, epilogue, ConvKernel::Subgroup, profile);
    }
    let steps = dot_steps(sizes, epilogue, profile)?;
    let output = sizes.output_shape.clone();
    Ok(Plan { op: OP, kernel: "dot", output, pack: None, scratch: Vec::new(), steps }.cut(profile))
}

/// A call whose kernel is to be chosen.
struct Asked<'a> {
    sizes: &'a Sizes,
    epilogue: Epilogue,
}

impl Tunable for Asked<'_> {
    type Kernel = LinearKernel;
    const AUTO: LinearKernel = LinearKernel::Auto;
    const REFERENCE: LinearKernel = LinearKernel::Dot;

    fn name(kernel: LinearKernel) -> &'static str {
        match kernel {
            LinearKernel::Auto => "auto",
            LinearKernel::Dot => "dot",
            LinearKernel::Subgroup => "subgroup",
        }
    }

    fn candidates(&self, profile: &Profile) -> Result<Vec<LinearKernel>> {
        candidates(self.sizes, profile)
    }

    fn plan(&self, kernel: LinearKernel, profile: &Profile) -> Result<Plan> {
        choose_plan(self.sizes, &self.epilogue, kernel, profile)
    }

    fn key(&self) -> String {
        let Sizes { rows, inputs, outputs, .. } = self.sizes;
        format!("{OP} rows={rows} weight={outputs}x{inputs} {}", self.epilogue)
    }

    fn arguments(&self) -> Vec<(&'static str, Option<Vec<usize>>)> {
        let [rows, inputs, outputs] =
            [self.sizes.rows, self.sizes.inputs, self.sizes.outputs].map(|size| size as usize);
        vec![
            ("input", Some(vec![rows, inputs])),
            ("weight", Some(vec![outputs, inputs])),
            ("bias", self.epilogue.has_bias.then(|| vec![outputs])),
            ("residual", self.epilogue.has_residual.then(|| self.sizes.output_shape.clone())),
        ]
    }

    fn products(&self) -> u64 {
        self.sizes.inputs
    }
}

fn candidates(sizes: &Sizes, profile: &Profile) -> Result<Vec<LinearKernel>> {
    let gemm = choose::candidates(&sizes.pointwise()?, profile).contains(&ConvKernel::Subgroup);
    // The GEMM's tile is four rows a lane and eight or more features: with few rows most of it is idle.
    Ok(match gemm {
        true if sizes.rows >= 16 && sizes.outputs >= 8 => vec![LinearKernel::Subgroup, LinearKernel::Dot],
        true => vec![LinearKernel::Dot, LinearKernel::Subgroup],
        false => vec![LinearKernel::Dot],
    })
}

/// Dispatches of `linear.wgsl`, by rows and features where a binding is too small for all.
fn dot_steps(sizes: &Sizes, epilogue: &Epilogue, profile: &Profile) -> Result<Vec<Step>> {
    let most = window_elements(profile);
    let (rows, inputs, outputs) = (sizes.rows, sizes.inputs, sizes.outputs);
    let fits = |elements: u64| (elements * 4).next_multiple_of(16) <= profile.max_binding;
    let (mut each, mut features) = (rows, outputs);
    if !(fits(rows * inputs) && fits(rows * outputs) && fits(outputs * inputs)) {
        if inputs > most {
            return Err(too_large(profile, OP, "input", inputs));
        }
        // One row's features fit in any case.
        features = if fits(outputs * inputs) { outputs.min(most) } else { outputs.min(most / inputs) };
        each = (most / inputs.max(outputs)).clamp(1, rows);
    }
    let mut steps = Vec::new();
    for first in (0..rows).step_by(each as usize) {
        for feature in (0..outputs).step_by(features as usize) {
            let part = first..(first + each).min(rows);
            steps.push(step(sizes, epilogue, profile, part, feature..(feature + features).min(outputs)));
        }
    }
    Ok(steps)
}

fn step(s: &Sizes, epilogue: &Epilogue, profile: &Profile, rows: Range<u64>, features: Range<u64>) -> Step {
    let last = rows.end - 1;
    let (x, x_base) =
        window(profile, Slot::Arg(0), rows.start * s.inputs..rows.end * s.inputs, s.rows * s.inputs, false);
    let w_range = features.start * s.inputs..features.end * s.inputs;
    let (w, w_base) = window(profile, Slot::Arg(1), w_range, s.outputs * s.inputs, false);
    let (bias, bias_base) = window(profile, Slot::Arg(2), features.clone(), s.outputs, false);
    let y_range = rows.start * s.outputs + features.start..last * s.outputs + features.end;
    let (y, y_base) = window(profile, Slot::Out, y_range, s.rows * s.outputs, true);
    let residual = epilogue.residual(3, y);
    let vec = s.inputs.is_multiple_of(4);
    let lanes = if vec { 4 } else { 1 };
    // A barrier is dear on a software adapter, unless there is much between two.
    let workgroup = WORKGROUPS[usize::from(profile.class != AdapterClass::Cpu || s.inputs >= 4096)];
    let (m_count, o_count) = (rows.end - rows.start, features.end - features.start);
    let tile = if m_count == 1 { ROWS[0] } else { ROWS[1] };
    let params = LinearParams {
        steps: (s.inputs / lanes) as u32,
        out: s.outputs as u32,
        m0: rows.start as u32,
        m_count: m_count as u32,
        o0: features.start as u32,
        o_count: o_count as u32,
        x_base: x_base / lanes as u32,
        w_base: w_base / lanes as u32,
        y_base,
        bias_base,
        has_bias: epilogue.has_bias.into(),
        has_residual: epilogue.has_residual.into(),
        activation: epilogue.activation.code(),
        slope: epilogue.activation.slope(),
    };
    Step {
        instance: instance(workgroup, tile, vec),
        params: Params::new(&params),
        bindings: vec![x, w, if epilogue.has_bias { bias } else { Binding::read(Slot::Nothing) }, residual, y],
        groups: o_count.div_ceil(4) * m_count.div_ceil(tile.into()),
        work: 2 * m_count * o_count * s.inputs,
    }
}
