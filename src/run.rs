//! Runs a plan: buffers for its slots, then its steps into the recording or into the caller's encoder.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::guard::binding_over;
use crate::kernel::{Bound, Kernel, Kernels};
use crate::plan::{Access, PARAMS_BYTES, Plan, Slot, Step};
use crate::pool::{DeviceBuffer, Pool};
use crate::tensor::Tensor;

/// A checked call: the plan and what its argument slots stand for.
pub(crate) struct Call<'a> {
    pub gpu: Gpu,
    pub plan: Plan,
    pub args: &'a [(&'static str, Option<&'a Tensor>)],
}

/// Work that was recorded into a caller's encoder ([`encode`](crate::Conv::encode) and its like).
///
/// It keeps arguments, scratch memory and the output out of the pool until the caller says that the encoder was submitted. Dropped
/// without that word, the memory is freed by wgpu when it is no longer used, and not used again.
#[must_use = "call submitted() after submitting the encoder"]
#[derive(Debug)]
pub struct Encoded {
    output: Tensor,
    /// All that the encoder's commands read and write.
    used: Vec<Arc<DeviceBuffer>>,
}

impl core::fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DeviceBuffer({})", self.id)
    }
}

impl Encoded {
    /// The output, for further work in the same encoder. Read it only after the encoder was submitted.
    #[must_use]
    pub fn output(&self) -> &Tensor {
        &self.output
    }

    /// The caller has submitted the encoder: gives the output, and the scratch memory back.
    #[must_use]
    pub fn submitted(self) -> Tensor {
        for buffer in &self.used {
            buffer.held.fetch_sub(1, Ordering::AcqRel);
        }
        self.output
    }

    /// The same, holding what work before it in the same encoder holds too.
    pub(crate) fn after(mut self, before: Encoded) -> Self {
        self.used.extend(before.used);
        self
    }
}

impl Call<'_> {
    /// Records the call; a new output tensor.
    pub fn forward(self) -> Result<Tensor> {
        let out = Tensor::uninit(&self.gpu, self.plan.op, "output", &self.plan.output)?;
        self.record(&out)?;
        Ok(out)
    }

    /// Records the call into the caller's output tensor.
    pub fn forward_into(self, out: &Tensor) -> Result<()> {
        check_output(self.plan.op, &self.gpu, &self.plan.output, self.args, out)?;
        // What was packed from its values is stale now.
        out.buffer.rewritten.store(true, Ordering::Release);
        self.record(out)
    }

    fn record(&self, out: &Tensor) -> Result<()> {
        let buffers = self.buffers()?;
        for step in buffers.steps(&self.plan) {
            let (kernel, bound) = self.bind(step, &buffers, out)?;
            let gpu = &self.gpu.0;
            let bind_group = gpu.kernels.bind(gpu, &kernel, &gpu.params, &bound)?;
            let groups = gpu.profile.fold(step.groups);
            gpu.lock_recorder().dispatch(gpu, (kernel, bind_group, groups), &step.params, step.work)?;
        }
        if let (Some(pack), Some(packed), true) = (&self.plan.pack, &buffers.packed, buffers.pack_now) {
            // Kept only now: whoever finds it records after the steps that make it.
            let keeper = self.args[pack.arg].1.filter(|tensor| tensor.may_keep_packed());
            keeper.inspect(|tensor| tensor.packed.keep(pack.key, packed.clone()));
        }
        Ok(())
    }

    /// Records the call into the caller's encoder, with parameters of its own.
    pub fn encode(self, encoder: &mut wgpu::CommandEncoder) -> Result<Encoded> {
        let out = Tensor::uninit(&self.gpu, self.plan.op, "output", &self.plan.output)?;
        let buffers = self.buffers()?;
        // Packing goes into the encoder too, which may never be submitted: nothing of it may be kept.
        let steps: Vec<&Step> = buffers.steps(&self.plan).collect();
        let gpu = &self.gpu.0;
        gpu.lock_recorder().flush(gpu)?;
        let params: Vec<u8> = steps.iter().flat_map(|step| step.params.0).collect();
        let params_buffer = gpu.allocate(|device| {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("parameters"),
                size: params.len().max(PARAMS_BYTES) as u64,
                usage: wgpu::BufferUsages::UNIFORM,
                mapped_at_creation: true,
            });
            let written = buffer.get_mapped_range_mut(..).map(|mut view| view.copy_from_slice(&params));
            buffer.unmap();
            written.map(|()| buffer)
        })?;
        let params_buffer =
            params_buffer.map_err(|error| gpu.lost_or(Error::OutOfMemory { reason: error.to_string() }))?;
        let mut bound_steps = Vec::new();
        for step in steps {
            let (kernel, bound) = self.bind(step, &buffers, &out)?;
            let bind_group = Kernels::create_bind_group(gpu, &kernel, &params_buffer, &bound)?;
            bound_steps.push((kernel, bind_group, gpu.profile.fold(step.groups)));
        }
        // Before anything is in the encoder: what fails half-way may be submitted all the same.
        let args = self.args.iter().filter_map(|(_, tensor)| tensor.map(|tensor| &tensor.buffer));
        let used = buffers.scratch.iter().chain(&buffers.packed).chain([&out.buffer]).chain(args).cloned();
        let used: Vec<_> = used.collect();
        for buffer in &used {
            buffer.held.fetch_add(1, Ordering::AcqRel);
        }
        gpu.scoped(|_| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for (slot, (kernel, bind_group, [x, y, z])) in bound_steps.iter().enumerate() {
                pass.set_pipeline(&kernel.pipeline);
                pass.set_bind_group(0, bind_group, &[(slot * PARAMS_BYTES) as u32]);
                pass.dispatch_workgroups(*x, *y, *z);
            }
        })?;
        Ok(Encoded { output: out, used })
    }

    /// Takes scratch memory and the packed weights, kept ones where they are there.
    fn buffers(&self) -> Result<Buffers> {
        let gpu = &self.gpu.0;
        let op = self.plan.op;
        let scratch = self.plan.scratch.iter().map(|&bytes| Pool::take(gpu, op, "scratch", bytes).map(Arc::new));
        let mut buffers = Buffers { scratch: scratch.collect::<Result<_>>()?, packed: None, pack_now: false };
        let Some(pack) = &self.plan.pack else { return Ok(buffers) };
        let source = self.args[pack.arg].1;
        let keeper = source.filter(|tensor| tensor.may_keep_packed());
        buffers.packed = keeper.and_then(|tensor| tensor.packed.get(&pack.key));
        if buffers.packed.is_none() {
            buffers.packed = Some(Arc::new(Pool::take(gpu, op, "packed weights", pack.bytes)?));
            buffers.pack_now = true;
        }
        Ok(buffers)
    }

    fn bind<'b>(&'b self, step: &Step, buffers: &'b Buffers, out: &'b Tensor) -> Result<(Arc<Kernel>, Vec<Bound<'b>>)> {
        let gpu = &self.gpu.0;
        let kernel = gpu.kernels.get(gpu, &step.instance, &step.bindings)?;
        let bound = step.bindings.iter().map(|binding| {
            let (buffer, whole) = match binding.slot {
                Slot::Arg(i) => match self.args[i].1 {
                    Some(tensor) => (Some(&tensor.buffer), tensor.bytes()),
                    None => (None, 16),
                },
                Slot::Out => (Some(&out.buffer), out.bytes()),
                Slot::Scratch(i) => (Some(&buffers.scratch[i]), self.plan.scratch[i].next_multiple_of(16)),
                Slot::Packed => (buffers.packed.as_ref(), self.plan.packed_bytes().next_multiple_of(16)),
                Slot::Nothing => (None, 16),
            };
            let size = if binding.size == 0 { whole } else { binding.size };
            match buffer {
                Some(buffer) => {
                    let last = binding.offset + size >= whole && binding.access != Access::Uniform;
                    let size = binding_over(size, last && buffer.guarded(), gpu.profile.max_binding);
                    Bound { buffer: &buffer.raw, id: buffer.id, offset: buffer.lead + binding.offset, size }
                }
                None => match &gpu.guards {
                    Some(guards) => {
                        let size = binding_over(16, true, gpu.profile.max_binding);
                        Bound { buffer: &gpu.nothing, id: 0, offset: guards.lead, size }
                    }
                    None => Bound { buffer: &gpu.nothing, id: 0, offset: 0, size: 16 },
                },
            }
        });
        let bound: Vec<Bound<'_>> = bound.collect();
        if let Some(guards) = &gpu.guards {
            for (b, _) in bound.iter().zip(&step.bindings).filter(|(_, binding)| binding.access == Access::Write) {
                guards.note(b.id, || format!("{} {} ({})", self.plan.op, self.plan.kernel, step.instance));
            }
        }
        Ok((kernel, bound))
    }
}

/// Checks that a call may write to the caller's output: of this Gpu and shape, in a buffer that no argument uses.
pub(crate) fn check_output(
    op: &'static str,
    gpu: &Gpu,
    shape: &[usize],
    args: &[(&'static str, Option<&Tensor>)],
    out: &Tensor,
) -> Result<()> {
    if out.gpu() != gpu {
        return Err(Error::invalid(op, "output", "a tensor of the input's Gpu", "one of another Gpu"));
    }
    if out.shape() != shape {
        return Err(Error::invalid(op, "output", format!("shape {shape:?}"), format!("{:?}", out.shape())));
    }
    for (name, tensor) in args {
        if tensor.is_some_and(|tensor| tensor.buffer.raw == out.buffer.raw) {
            return Err(Error::invalid(op, "output", "a buffer that no argument uses", format!("that of {name}")));
        }
    }
    Ok(())
}

/// The buffers behind a plan's scratch and packed slots.
struct Buffers {
    scratch: Vec<Arc<DeviceBuffer>>,
    packed: Option<Arc<DeviceBuffer>>,
    /// The packed weights are still to be made.
    pack_now: bool,
}

impl Buffers {
    fn steps<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = &'p Step> + use<'p> {
        let pack = plan.pack.as_ref().filter(|_| self.pack_now);
        pack.into_iter().flat_map(|pack| &pack.steps).chain(&plan.steps)
    }
}

/// A handle of the same weight whose packed copy is made and kept.
pub(crate) fn prepare(weight: &Tensor, plan: &Plan) -> Result<Tensor> {
    let weight = weight.promised();
    let Some(pack) = &plan.pack else { return Ok(weight) };
    // Only the packing is run: its steps read the weight's slot and write the packed one.
    let mut args = vec![("weight", None); pack.arg];
    args.push(("weight", Some(&weight)));
    let plan = Plan { scratch: Vec::new(), steps: Vec::new(), ..plan.clone() };
    Call { gpu: weight.gpu().clone(), plan, args: &args }.record(&weight)?;
    Ok(weight)
}

/// Compiles what the plan dispatches and nobody has needed yet, several kernels at a time. Returns when that is done, but on the web.
pub(crate) fn warm_up(gpu: &Gpu, plan: &Plan) -> Result<()> {
    let inner = &gpu.0;
    let steps: Vec<&Step> = plan.all_steps().collect();
    let compile = |step: &&Step| inner.kernels.get(inner, &step.instance, &step.bindings);
    let kernels = steps.par_iter().map(compile).collect::<Result<Vec<_>>>()?;
    // Some drivers make the machine code when a kernel is first dispatched: a dispatch of no workgroups is enough.
    let written = Pool::take(inner, plan.op, "output", 16)?;
    for (step, kernel) in steps.into_iter().zip(kernels) {
        let bound = step.bindings.iter().map(|binding| match binding.access {
            Access::Write => Bound { buffer: &written.raw, id: written.id, offset: 0, size: 16 },
            Access::Read => Bound { buffer: &inner.nothing, id: 0, offset: 0, size: 16 },
            // A uniform array has a length, which the binding must have too.
            Access::Uniform => Bound { buffer: &inner.params, id: 0, offset: 0, size: binding.size },
        });
        let bind_group = Kernels::create_bind_group(inner, &kernel, &inner.params, &bound.collect::<Vec<_>>())?;
        inner.lock_recorder().dispatch(inner, (kernel, bind_group, [0; 3]), &step.params, 0)?;
    }
    #[cfg(not(target_arch = "wasm32"))]
    return gpu.wait();
    #[cfg(target_arch = "wasm32")]
    gpu.submit()
}
