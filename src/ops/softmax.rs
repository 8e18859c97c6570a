//! Softmax along one axis.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::window::{window, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Params, Plan, Slot, Step};
use crate::profile::{AdapterClass, Profile};
use crate::run::{Call, Encoded};
use crate::tensor::{Tensor, byte_count};

const OP: &str = "softmax";

params! {
    /// `Params` of `softmax/stats.wgsl`.
    pub struct StatsParams {
        len: u32, inner: u32, o0: u32, o_count: u32,
        i0: u32, i_count: u32, l0: u32, l_count: u32,
        x_base: u32, first: u32, last: u32, nan: f32,
    }
}

params! {
    /// `Params` of `softmax/apply.wgsl`.
    pub struct ApplyParams {
        len: u32, inner: u32, o0: u32, o_count: u32,
        i0: u32, i_count: u32, l0: u32, l_count: u32,
        x_base: u32, y_base: u32, tiles: u32,
    }
}

/// Threads that share a line.
pub(crate) const WORKGROUPS: [u32; 2] = [1, 64];

pub(crate) fn stats_instance(workgroup: u32) -> Instance {
    Instance::new("softmax/stats.wgsl").with("WG", workgroup)
}

pub(crate) fn apply_instance() -> Instance {
    Instance::new("softmax/apply.wgsl")
}

/// Softmax along one axis (PyTorch's `softmax`), the greatest value of each line subtracted first:
///
/// `y[.., l, ..] = exp(x[.., l, ..] - m) / sum over j of exp(x[.., j, ..] - m)`, `m = max over j of x[.., j, ..]`
///
/// A NaN or a plus infinity makes its line NaN, and so does a line of nothing but minus infinities; no other line sees it.
/// With `d = m - x` each result is right to `3 + 2.5 d` ulp (2^-23) of itself, the mean of that over the line (weighted with the results),
/// half an ulp an element for the sum and 3 ulp: 2.5 for the division, the rest for what is of second order. A line that is too long for a
/// binding is cut, which adds 4 ulp a part. What falls below 2^-124 may come out as 0.
///
/// # Shapes
/// Input and output alike, with at least one axis. The axis may count from the end: -1 is the last.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, Softmax, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let logits = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 1000)))?;
/// let y = Softmax::new(-1).forward(&logits)?;
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Softmax {
    axis: isize,
}

/// Checked sizes: `[outer, len, inner]`.
struct Sizes {
    outer: u64,
    len: u64,
    inner: u64,
}

/// Lines and positions that one dispatch works on: ranges of the three axes.
#[derive(Clone)]
struct Part {
    outer: Range<u64>,
    inner: Range<u64>,
    axis: Range<u64>,
}

impl Part {
    fn lines(&self) -> u64 {
        (self.outer.end - self.outer.start) * (self.inner.end - self.inner.start)
    }

    fn elements(&self) -> u64 {
        self.lines() * (self.axis.end - self.axis.start)
    }
}

/// `0..count` in steps of `each`.
fn chunks(count: u64, each: u64) -> impl Iterator<Item = Range<u64>> {
    (0..count).step_by(each as usize).map(move |first| first..(first + each).min(count))
}

impl Sizes {
    /// Where a part lies in the input and the output.
    fn span(&self, part: &Part) -> Range<u64> {
        let at = |o: u64, l: u64, i: u64| (o * self.len + l) * self.inner + i;
        at(part.outer.start, part.axis.start, part.inner.start)
            ..at(part.outer.end - 1, part.axis.end - 1, part.inner.end - 1) + 1
    }
}

impl Softmax {
    /// Along this axis; a negative one counts from the end.
    pub fn new(axis: isize) -> Self {
        Self { axis }
    }

    fn sizes(&self, input: &[usize]) -> Result<Sizes> {
        if input.contains(&0) {
            return Err(Error::invalid(OP, "input", "no empty dimension", format!("{input:?}")));
        }
        let from_start = if self.axis < 0 { self.axis.checked_add_unsigned(input.len()) } else { Some(self.axis) };
        let axis = from_start.and_then(|axis| usize::try_from(axis).ok()).filter(|&axis| axis < input.len());
        let Some(axis) = axis else {
            return Err(Error::invalid(OP, "axis", format!("an axis of {input:?}"), self.axis));
        };
        byte_count(OP, "input", input, u64::MAX)?;
        let product = |extents: &[usize]| extents.iter().product::<usize>() as u64;
        Ok(Sizes { outer: product(&input[..axis]), len: input[axis] as u64, inner: product(&input[axis + 1..]) })
    }

    /// The output's shape, which is the input's, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty shape or an axis that it does not have.
    pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.sizes(input).map(|_| input.to_vec())
    }

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// As [`Softmax::output_shape`].
    pub fn plan(&self, profile: &Profile, input: &[usize]) -> Result<Plan> {
        let sizes = self.sizes(input)?;
        // A barrier is dear on a software adapter, and a short line does not keep many threads busy.
        let long = sizes.len >= if profile.class == AdapterClass::Cpu { 4096 } else { 64 };
        let workgroup = WORKGROUPS[usize::from(long && sizes.inner == 1)];
        let most = window_elements(profile);
        let fits = (sizes.outer * sizes.len * sizes.inner * 4).next_multiple_of(16) <= profile.max_binding;
        // A line's two numbers are 8 bytes of scratch.
        let line_limit = most / 2;
        let (outer_each, axis_each, inner_each) = if fits && sizes.outer * sizes.inner <= line_limit {
            (sizes.outer, sizes.len, sizes.inner)
        } else if sizes.len * sizes.inner <= most && sizes.inner <= line_limit {
            (most / (sizes.len * sizes.inner), sizes.len, sizes.inner)
        } else if sizes.inner <= line_limit {
            (1, most / sizes.inner, sizes.inner)
        } else {
            (1, 1, line_limit)
        };
        let outer_each = outer_each.min(line_limit / inner_each).max(1);
        let mut steps = Vec::new();
        for outer in chunks(sizes.outer, outer_each) {
            for inner in chunks(sizes.inner, inner_each) {
                let part = |axis| Part { outer: outer.clone(), inner: inner.clone(), axis };
                steps.extend(chunks(sizes.len, axis_each).map(|axis| stats(profile, &sizes, workgroup, &part(axis))));
                steps.extend(chunks(sizes.len, axis_each).map(|axis| apply(profile, &sizes, &part(axis))));
            }
        }
        let scratch = vec![outer_each.min(sizes.outer) * inner_each * 8];
        let kernel = if workgroup > 1 { "a workgroup a line" } else { "a thread a line" };
        Ok(Plan { op: OP, kernel, output: input.to_vec(), pack: None, scratch, steps }.cut(profile))
    }

    fn with_call<T>(&self, input: &Tensor, run: impl FnOnce(Call<'_>) -> Result<T>) -> Result<T> {
        let gpu = input.gpu().clone();
        let plan = self.plan(gpu.profile(), input.shape())?;
        run(Call { gpu, plan, args: &[("input", Some(input))] })
    }

    /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing.
    ///
    /// # Errors
    /// As [`Softmax::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, input: &[usize]) -> Result<()> {
        crate::run::warm_up(gpu, &self.plan(gpu.profile(), input)?)
    }

    /// Records the softmax.
    ///
    /// # Errors
    /// As [`Softmax::output_shape`], and errors of the device.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.with_call(input, |call| call.forward())
    }

    /// The same into the caller's output, which may not share the input's buffer.
    ///
    /// # Errors
    /// As [`Softmax::forward`], and for an output of another shape or one that aliases the input.
    pub fn forward_into(&self, input: &Tensor, output: &Tensor) -> Result<()> {
        self.with_call(input, |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`Softmax::forward`].
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, input: &Tensor) -> Result<Encoded> {
        self.with_call(input, |call| call.encode(encoder))
    }
}

fn stats(profile: &Profile, sizes: &Sizes, workgroup: u32, part: &Part) -> Step {
    let total = sizes.outer * sizes.len * sizes.inner;
    let (x, x_base) = window(profile, Slot::Arg(0), sizes.span(part), total, false);
    let params = StatsParams {
        len: sizes.len as u32,
        inner: sizes.inner as u32,
        o0: part.outer.start as u32,
        o_count: (part.outer.end - part.outer.start) as u32,
        i0: part.inner.start as u32,
        i_count: (part.inner.end - part.inner.start) as u32,
        l0: part.axis.start as u32,
        l_count: (part.axis.end - part.axis.start) as u32,
        x_base,
        first: (part.axis.start == 0).into(),
        last: (part.axis.end == sizes.len).into(),
        nan: f32::NAN,
    };
    Step {
        instance: stats_instance(workgroup),
        params: Params::new(&params),
        bindings: vec![x, Binding::write(Slot::Scratch(0))],
        groups: if workgroup > 1 { part.lines() } else { part.lines().div_ceil(64) },
        work: part.elements() * 32,
    }
}

fn apply(profile: &Profile, sizes: &Sizes, part: &Part) -> Step {
    let total = sizes.outer * sizes.len * sizes.inner;
    let (x, x_base) = window(profile, Slot::Arg(0), sizes.span(part), total, false);
    let (y, y_base) = window(profile, Slot::Out, sizes.span(part), total, true);
    let tiles = (part.axis.end - part.axis.start).div_ceil(4);
    let params = ApplyParams {
        len: sizes.len as u32,
        inner: sizes.inner as u32,
        o0: part.outer.start as u32,
        o_count: (part.outer.end - part.outer.start) as u32,
        i0: part.inner.start as u32,
        i_count: (part.inner.end - part.inner.start) as u32,
        l0: part.axis.start as u32,
        l_count: (part.axis.end - part.axis.start) as u32,
        x_base,
        y_base,
        tiles: tiles as u32,
    };
    Step {
        instance: apply_instance(),
        params: Params::new(&params),
        bindings: vec![x, Binding::read(Slot::Scratch(0)), y],
        groups: (part.lines() * tiles).div_ceil(64),
        work: part.elements() * 32,
    }
}
