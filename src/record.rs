//! Recording: operators queue up here and go to the device in one submission.
//!
//! What makes it safe: uploads are staging buffers copied in the same stream of commands, parameters are written once before a
//! submission into slots that only that submission reads, and a buffer that comes from the pool was last used by commands
//! that stand earlier in the same queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::gpu::{Inner, scoped};
use crate::kernel::Kernel;
use crate::plan::{PARAMS_BYTES, Params};

/// Bytes of uploads that may wait before a submission.
const MAX_UPLOAD_BYTES: u64 = 256 << 20;

pub(crate) enum Command {
    Dispatch { kernel: Arc<Kernel>, bind_group: wgpu::BindGroup, groups: [u32; 3] },
    Copy { from: wgpu::Buffer, from_offset: u64, to: wgpu::Buffer, to_offset: u64, bytes: u64 },
}

/// How long one dispatch took on the device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KernelTime {
    /// The shader and its constants.
    pub kernel: String,
    /// Nanoseconds between the timestamps before and after it.
    pub nanoseconds: f64,
}

#[derive(Default)]
pub(crate) struct Recorder {
    commands: Vec<Command>,
    /// One slot a dispatch, in order.
    params: Vec<u8>,
    work: u64,
    upload_bytes: u64,
    /// Collects kernel times while it is set.
    pub times: Option<Vec<KernelTime>>,
}

impl Recorder {
    const MAX_DISPATCHES: usize = 512;
    /// Bytes of the parameter buffer that a [`crate::Gpu`] owns.
    pub const PARAMS_CAPACITY: u64 = (Self::MAX_DISPATCHES * PARAMS_BYTES) as u64;

    pub fn dispatch(
        &mut self,
        gpu: &Inner,
        (kernel, bind_group, groups): (Arc<Kernel>, wgpu::BindGroup, [u32; 3]),
        params: &Params,
        work: u64,
    ) -> Result<()> {
        if self.params.len() as u64 == Self::PARAMS_CAPACITY
            || (self.work > 0 && self.work + work > gpu.profile.max_work)
        {
            self.flush(gpu)?;
        }
        self.params.extend_from_slice(&params.0);
        self.work += work;
        self.commands.push(Command::Dispatch { kernel, bind_group, groups });
        Ok(())
    }

    pub fn copy(
        &mut self,
        gpu: &Inner,
        (from, from_offset): (&wgpu::Buffer, u64),
        (to, to_offset): (&wgpu::Buffer, u64),
        bytes: u64,
    ) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.commands.push(Command::Copy { from, from_offset, to, to_offset, bytes });
        self.upload_bytes += bytes;
        if self.upload_bytes > MAX_UPLOAD_BYTES { self.flush_last(gpu).map(|_| ()) } else { Ok(()) }
    }

    /// Submits what is recorded for the sake of the last copy, which goes where that fails: who asked for it has the error, and its
    /// buffer would wait for nobody.
    pub fn flush_last(&mut self, gpu: &Inner) -> Result<Option<wgpu::SubmissionIndex>> {
        let flushed = self.flush(gpu);
        if flushed.is_err() {
            if let Some(Command::Copy { bytes, .. }) = self.commands.pop() {
                self.upload_bytes -= bytes;
            }
        }
        flushed
    }

    /// Submits what is recorded; the submission's index, if there was anything. Where there is no memory for that, or an error of
    /// something else comes to light first, all stays recorded for the next time: others wait for its results.
    pub fn flush(&mut self, gpu: &Inner) -> Result<Option<wgpu::SubmissionIndex>> {
        if let Err(error) = gpu.check() {
            if !matches!(error, Error::OutOfMemory { .. } | Error::Device { .. }) {
                self.clear();
            }
            return Err(error);
        }
        if self.commands.is_empty() {
            return Ok(None);
        }
        let timed = self.times.is_some() && gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let queries = if timed { Some(Queries::new(gpu, self.params.len() / PARAMS_BYTES)?) } else { None };
        let index = match self.submit(gpu, queries.as_ref()) {
            Ok(index) => index,
            Err(error @ Error::OutOfMemory { .. }) => return Err(error),
            Err(error) => {
                self.clear();
                if matches!(error, Error::Device { .. }) {
                    gpu.broke(&error);
                }
                return Err(error);
            }
        };
        let read = match (queries, &mut self.times) {
            (Some(queries), Some(times)) => queries.read(gpu, &self.commands, times),
            _ => Ok(()),
        };
        self.clear();
        // Only now what came from elsewhere in the meantime: before, it would look as if nothing had been submitted.
        read.and_then(|()| gpu.check()).map(|()| Some(index))
    }

    /// All of it or nothing: an error means that no command runs.
    fn submit(&self, gpu: &Inner, queries: Option<&Queries>) -> Result<wgpu::SubmissionIndex> {
        gpu.faults.step(&gpu.device)?;
        // By itself: commands must not run on the parameters of an earlier submission.
        if !self.params.is_empty() {
            scoped(&gpu.device, |_| gpu.queue.write_buffer(&gpu.params, 0, &self.params))
                .map_err(|error| gpu.lost_or(error))?;
        }
        let submitted = scoped(&gpu.device, |device| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("wgconv") });
            encode(&mut encoder, &self.commands, queries);
            gpu.queue.submit([encoder.finish()])
        });
        let index = submitted.map_err(|error| gpu.lost_or(error))?;
        gpu.submissions.fetch_add(1, Ordering::Relaxed);
        Ok(index)
    }

    /// Forgets what is recorded, but keeps the vectors' memory for the next submission.
    fn clear(&mut self) {
        self.commands.clear();
        self.params.clear();
        (self.work, self.upload_bytes) = (0, 0);
    }
}

/// Encodes commands; dispatches share a pass, or have one each where they are timed.
fn encode(encoder: &mut wgpu::CommandEncoder, commands: &[Command], queries: Option<&Queries>) {
    let mut slot = 0;
    let mut pass: Option<wgpu::ComputePass<'static>> = None;
    for command in commands {
        match command {
            Command::Copy { from, from_offset, to, to_offset, bytes } => {
                pass = None;
                encoder.copy_buffer_to_buffer(from, *from_offset, to, *to_offset, *bytes);
            }
            Command::Dispatch { kernel, bind_group, groups: [x, y, z] } => {
                if queries.is_some() {
                    pass = None;
                }
                let pass = pass.get_or_insert_with(|| {
                    let timestamp_writes = queries.map(|queries| queries.writes(slot));
                    let descriptor = wgpu::ComputePassDescriptor { label: Some("wgconv"), timestamp_writes };
                    encoder.begin_compute_pass(&descriptor).forget_lifetime()
                });
                pass.set_pipeline(&kernel.pipeline);
                pass.set_bind_group(0, bind_group, &[slot * PARAMS_BYTES as u32]);
                pass.dispatch_workgroups(*x, *y, *z);
                slot += 1;
            }
        }
    }
    drop(pass);
    if let Some(queries) = queries {
        encoder.resolve_query_set(&queries.set, 0..slot * 2, &queries.resolved, 0);
        encoder.copy_buffer_to_buffer(&queries.resolved, 0, &queries.staging, 0, queries.staging.size());
    }
}

/// Timestamps around every dispatch of a submission.
struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl Queries {
    fn new(gpu: &Inner, dispatches: usize) -> Result<Self> {
        let count = (dispatches.max(1) * 2) as u32;
        gpu.scoped(|device| {
            let buffer = |usage| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("timestamps"),
                    size: u64::from(count) * 8,
                    usage,
                    mapped_at_creation: false,
                })
            };
            Self {
                set: device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count,
                }),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                staging: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            }
        })
    }

    fn writes(&self, slot: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(slot * 2),
            end_of_pass_write_index: Some(slot * 2 + 1),
        }
    }

    fn read(self, gpu: &Inner, commands: &[Command], times: &mut Vec<KernelTime>) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        {
            let bytes = crate::read::map_blocking(gpu, &self.staging, self.staging.size(), None)?;
            let stamps: &[u64] = &bytemuck::pod_collect_to_vec(&bytes);
            let period = f64::from(gpu.queue.get_timestamp_period());
            let kernels = commands.iter().filter_map(|command| match command {
                Command::Dispatch { kernel, .. } => Some(kernel.instance.to_string()),
                Command::Copy { .. } => None,
            });
            times.extend(kernels.zip(stamps.chunks_exact(2)).map(|(kernel, stamp)| KernelTime {
                kernel,
                nanoseconds: stamp[1].saturating_sub(stamp[0]) as f64 * period,
            }));
        }
        #[cfg(target_arch = "wasm32")]
        let _ = (gpu, commands, times, Error::DeviceLost { reason: String::new() });
        Ok(())
    }
}

impl crate::Gpu {
    /// Runs `f` and gives the device time of every dispatch that it recorded, in order. Empty where the device has no
    /// `Features::TIMESTAMP_QUERY`. Each dispatch then has a pass of its own.
    ///
    /// # Errors
    /// What `f` gives, and as [`crate::Gpu::submit`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn time_kernels(&self, f: impl FnOnce() -> Result<()>) -> Result<Vec<KernelTime>> {
        self.submit()?;
        self.0.lock_recorder().times = Some(Vec::new());
        let result = f().and_then(|()| self.submit());
        let times = self.0.lock_recorder().times.take();
        result?;
        times.ok_or_else(|| Error::Device { reason: "kernels are timed by two threads at once".into() })
    }
}
