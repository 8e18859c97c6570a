//! Global average pooling.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::window::{window, window_elements};
use crate::params::params;
use crate::plan::{Instance, Params, Plan, Slot, Step};
use crate::profile::{AdapterClass, Profile};
use crate::run::{Call, Encoded};
use crate::tensor::{Tensor, byte_count};

const OP: &str = "global_avg_pool";

params! {
    /// `Params` of `pool/global.wgsl`.
    pub struct GlobalParams {
        size: u32, start: u32, count: u32, planes: u32,
        plane0: u32, x_base: u32, y_base: u32, activation: u32,
        first: u32, last: u32, slope: f32,
    }
}

/// Threads that share a plane.
pub(crate) const WORKGROUPS: [u32; 2] = [1, 64];

pub(crate) fn instance(workgroup: u32) -> Instance {
    Instance::new("pool/global.wgsl").with("WG", workgroup)
}

/// The mean over all spatial axes (PyTorch's `adaptive_avg_pool1d`, `2d` and `3d` to size 1), which stay with extent 1:
///
/// `y[n,c] = act(sum over all q of x[n,c,q] / Q)`
///
/// # Shapes
/// Input `[N, C, spatial...]` with any number of spatial axes, output `[N, C, 1, ...]`.
///
/// # Example
/// ```no_run
/// use wgconv::{GlobalAvgPool, Gpu, Tensor, ndarray::Array};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((1, 2048, 7, 7)))?;
/// let y = GlobalAvgPool::new().forward(&x)?.reshape(&[1, 2048])?;
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct GlobalAvgPool {
    activation: Activation,
}

impl GlobalAvgPool {
    /// Without an activation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applied last.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input with fewer than three axes or an empty one.
    pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        if input.len() < 3 || input.contains(&0) {
            let expected = "[N, C, spatial...], none of them empty";
            return Err(Error::invalid(OP, "input", expected, format!("{input:?}")));
        }
        byte_count(OP, "input", input, u64::MAX)?;
        let mut output = vec![1; input.len()];
        output[..2].copy_from_slice(&input[..2]);
        Ok(output)
    }

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// As [`GlobalAvgPool::output_shape`].
    pub fn plan(&self, profile: &Profile, input: &[usize]) -> Result<Plan> {
        let output = self.output_shape(input)?;
        let planes = (input[0] * input[1]) as u64;
        let size = input[2..].iter().product::<usize>() as u64;
        // A barrier is dear on a software adapter, and a short plane does not keep many threads busy.
        let shared = size >= if profile.class == AdapterClass::Cpu { 4096 } else { 256 };
        let workgroup = WORKGROUPS[usize::from(shared)];
        let most = window_elements(profile);
        let fits = (planes * size * 4).next_multiple_of(16) <= profile.max_binding;
        let each = if fits { planes } else { (most / size).clamp(1, planes) };
        let chunk = if fits { size } else { size.min(most) };
        let mut steps = Vec::new();
        for first in (0..planes).step_by(each as usize) {
            for start in (0..size).step_by(chunk as usize) {
                let part = start..(start + chunk).min(size);
                steps.push(self.step(profile, workgroup, (planes, size), first..(first + each).min(planes), part));
            }
        }
        let kernel = if shared { "global" } else { "global, a thread a plane" };
        Ok(Plan { op: OP, kernel, output, pack: None, scratch: Vec::new(), steps }.cut(profile))
    }

    fn step(
        &self,
        profile: &Profile,
        workgroup: u32,
        (planes, size): (u64, u64),
        part: Range<u64>,
        elements: Range<u64>,
    ) -> Step {
        let x_range = part.start * size + elements.start..(part.end - 1) * size + elements.end;
        let (x, x_base) = window(profile, Slot::Arg(0), x_range, planes * size, false);
        let (y, y_base) = window(profile, Slot::Out, part.clone(), planes, true);
        let (count, part_planes) = (elements.end - elements.start, part.end - part.start);
        let params = GlobalParams {
            size: size as u32,
            start: elements.start as u32,
            count: count as u32,
            planes: part_planes as u32,
            plane0: part.start as u32,
            x_base,
            y_base,
            activation: self.activation.code(),
            first: (elements.start == 0).into(),
            last: (elements.end == size).into(),
            slope: self.activation.slope(),
        };
        Step {
            instance: instance(workgroup),
            params: Params::new(&params),
            bindings: vec![x, y],
            groups: if workgroup > 1 { part_planes } else { part_planes.div_ceil(64) },
            work: part_planes * count,
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
    /// As [`GlobalAvgPool::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, input: &[usize]) -> Result<()> {
        crate::run::warm_up(gpu, &self.plan(gpu.profile(), input)?)
    }

    /// Records the pooling.
    ///
    /// # Errors
    /// As [`GlobalAvgPool::output_shape`], and errors of the device.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.with_call(input, |call| call.forward())
    }

    /// The same into the caller's output, which may not share the input's buffer.
    ///
    /// # Errors
    /// As [`GlobalAvgPool::forward`], and for an output of another shape or one that aliases the input.
    pub fn forward_into(&self, input: &Tensor, output: &Tensor) -> Result<()> {
        self.with_call(input, |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`GlobalAvgPool::forward`].
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, input: &Tensor) -> Result<Encoded> {
        self.with_call(input, |call| call.encode(encoder))
    }
}
