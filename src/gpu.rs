//! [`Gpu`]: an open device. Opens one, or takes the caller's.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::builder::{GpuBuilder, Settings};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::guard::Guards;
use crate::kernel::Kernels;
use crate::pipeline_cache::PipelineCache;
use crate::pool::Pool;
use crate::profile::Profile;
use crate::record::Recorder;
use crate::tuning::Tuner;

/// An open device with its kernels, its buffer pool and what is recorded for it. Clones are cheap and share all of it.
///
/// Operators queue up: they are recorded, and run when a result is read or [`Gpu::submit`] is called.
///
/// # Example
/// ```no_run
/// let gpu = wgconv::Gpu::new_blocking()?;
/// println!("{}", gpu.adapter_info().name);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone)]
pub struct Gpu(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub profile: Profile,
    pub pool: Pool,
    pub kernels: Kernels,
    pub tuner: Tuner,
    pub recorder: Mutex<Recorder>,
    /// Uniform parameters of the dispatches of one submission.
    pub params: wgpu::Buffer,
    /// Sixteen zero bytes, bound in place of an argument that is not given; behind a guard where there are guards.
    pub nothing: wgpu::Buffer,
    /// Of a Gpu that was opened with guards.
    pub guards: Option<Guards>,
    /// Why the device was lost, once it is.
    lost: Arc<OnceLock<String>>,
    /// The first error that no scope caught.
    uncaught: Arc<Mutex<Option<Error>>>,
    /// The error of a submission that took what was recorded with it.
    broken: OnceLock<Error>,
    pub faults: Faults,
    pub submissions: AtomicU64,
}

/// Counts of what a [`Gpu`] has created since it was opened, and of what there is. In steady state none but `submissions` grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Device buffers created.
    pub buffers: u64,
    /// Bind groups created.
    pub bind_groups: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Command buffers submitted.
    pub submissions: u64,
    /// Buffers of tensors, scratch memory and packed weights that there are, in use or in the pool.
    pub live_buffers: u64,
    /// Bytes of freed buffers that wait in the pool.
    pub pooled_bytes: u64,
}

impl Gpu {
    /// Opens the adapter that wgpu takes for the most powerful, with all of its limits.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where there is none, [`Error::NoDevice`] where it opens no device.
    pub async fn new() -> Result<Self> {
        Self::builder().build().await
    }

    /// [`Gpu::new`], waiting for it.
    ///
    /// # Errors
    /// As [`Gpu::new`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new_blocking() -> Result<Self> {
        pollster::block_on(Self::new())
    }

    /// To choose the adapter, its backend or its limits.
    pub fn builder() -> GpuBuilder {
        GpuBuilder::default()
    }

    /// Takes the caller's device and queue. The caller keeps its handlers of errors and of loss; where the device is lost, the
    /// caller says so by [`Gpu::notify_lost`].
    ///
    /// Kernels with subgroup operations are chosen where the device has `Features::SUBGROUP`, kernel times are there with
    /// `Features::TIMESTAMP_QUERY`, and on a software driver loads are wide with `Features::SHADER_INT64` ([`Profile::wide_loads`]).
    /// Nothing is measured and no file is read or written: [`GpuBuilder::wrap`] for more.
    ///
    /// # Errors
    /// What creating the first small buffers gives.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        Self::builder().cache(Cache::Off).wrap(device, queue)
    }

    pub(crate) fn with(
        device: wgpu::Device,
        queue: wgpu::Queue,
        settings: Settings,
        lost: Arc<OnceLock<String>>,
        uncaught: Arc<Mutex<Option<Error>>>,
    ) -> Result<Self> {
        let mut profile = Profile::of(&device);
        profile.max_work = settings.max_work.unwrap_or(profile.max_work);
        let folder = settings.cache.folder();
        let tuner = Tuner::open(settings.tuning, &device.adapter_info(), folder.as_deref())?;
        let cache = folder.map(|folder| PipelineCache::open(&device, &folder)).unwrap_or_default();
        let (params, nothing) = scoped(&device, |device| {
            let buffer = |label, size, usage| {
                let usage = usage | wgpu::BufferUsages::COPY_DST;
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let params = buffer("parameters", Recorder::PARAMS_CAPACITY, wgpu::BufferUsages::UNIFORM);
            (params, buffer("nothing", 16, wgpu::BufferUsages::STORAGE))
        })?;
        let (guards, nothing) = match settings.guarded {
            true => scoped(&device, Guards::new)?.map(|(guards, nothing)| (Some(guards), nothing))?,
            false => (None, nothing),
        };
        Ok(Self(Arc::new(Inner {
            device,
            queue,
            profile,
            pool: Pool::default(),
            kernels: Kernels::new(cache),
            tuner,
            recorder: Mutex::default(),
            params,
            nothing,
            guards,
            lost,
            uncaught,
            broken: OnceLock::new(),
            faults: Faults::default(),
            submissions: AtomicU64::new(0),
        })))
    }

    /// The device, for an application that shares it.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// The queue, for an application that shares it. What is recorded here runs only once it is submitted: see [`Gpu::submit`].
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// Name, driver and kind of the adapter.
    #[must_use]
    pub fn adapter_info(&self) -> wgpu::AdapterInfo {
        self.0.device.adapter_info()
    }

    /// What the choice of kernels depends on.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.0.profile
    }

    /// Submits what is recorded, without waiting for it. Call it before writing into a wrapped buffer
    /// ([`Tensor::from_buffer`](crate::Tensor::from_buffer)) by other means: what is recorded would otherwise run after that.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`] or [`Error::Device`] of this or an earlier submission. Where memory runs out, what
    /// is recorded stays recorded, and the next submission takes it along. After an [`Error::Device`] of a submission every later call
    /// gives that error, since what was recorded is gone: open a new Gpu, on the same device by [`Gpu::from_wgpu`] where that is still good.
    pub fn submit(&self) -> Result<()> {
        self.0.lock_recorder().flush(&self.0).map(|_| ())
    }

    /// Submits what is recorded and waits until it has run.
    ///
    /// # Errors
    /// As [`Gpu::submit`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<()> {
        let index = self.0.lock_recorder().flush(&self.0)?;
        self.0.wait(index)
    }

    /// Tells that a device handed to [`Gpu::from_wgpu`] is lost: every later call gives [`Error::DeviceLost`].
    pub fn notify_lost(&self, reason: &str) {
        let _ = self.0.lost.set(reason.to_string());
    }

    /// Writes the compiled pipelines into a file of the [`Cache`], from which the next process takes them. This happens by itself where
    /// the last handle is dropped and something was compiled; an application that ends otherwise calls it. Nothing happens where the
    /// cache is off, or the adapter has none: only Vulkan does, and some drivers keep all that they compile by themselves.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written.
    pub fn save_pipeline_cache(&self) -> Result<()> {
        self.0.kernels.cache.save()
    }

    /// Frees the buffers that wait in the pool.
    ///
    /// # Errors
    /// As [`Gpu::submit`], which it does first.
    pub fn trim(&self) -> Result<()> {
        self.submit()?;
        self.0.trim()
    }

    /// What was created since the device was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            buffers: self.0.pool.created.load(Ordering::Relaxed),
            bind_groups: self.0.kernels.bind_groups_created.load(Ordering::Relaxed),
            pipelines: self.0.kernels.pipelines_created.load(Ordering::Relaxed),
            submissions: self.0.submissions.load(Ordering::Relaxed),
            live_buffers: self.0.pool.live.load(Ordering::Relaxed),
            pooled_bytes: self.0.pool.bytes(),
        }
    }
}

impl PartialEq for Gpu {
    /// Whether both are the same open device.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.adapter_info();
        f.debug_struct("Gpu").field("adapter", &info.name).field("backend", &info.backend).finish_non_exhaustive()
    }
}

impl Inner {
    pub fn lock_recorder(&self) -> std::sync::MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f`, whose wgpu errors come back as ours.
    pub fn scoped<T>(&self, f: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        self.check()?;
        self.faults.step(&self.device)?;
        let result = scoped(&self.device, f);
        self.check()?;
        result.map_err(|error| self.lost_or(error))
    }

    /// The same for a buffer. What is missing may be what waits in the pool, or what recorded commands still hold: where memory runs
    /// out, those are submitted, waited for and the pool is emptied before a second try. No lock of the recorder may be held.
    pub fn allocate<T>(&self, f: impl Fn(&wgpu::Device) -> T) -> Result<T> {
        match self.scoped(&f) {
            Err(Error::OutOfMemory { .. }) => {
                let submitted = self.lock_recorder().flush(self);
                #[cfg(not(target_arch = "wasm32"))]
                if let Ok(index) = submitted {
                    self.wait(index)?;
                }
                #[cfg(target_arch = "wasm32")]
                drop(submitted);
                self.trim()?;
                self.scoped(f)
            }
            other => other,
        }
    }

    /// A submission has failed with all that was recorded. Results of others would be missing in silence, so nothing more is done.
    pub fn broke(&self, error: &Error) {
        let _ = self.broken.set(error.clone());
    }

    /// A lost device says so in the words of some other failure; its callback comes with a poll once all that was submitted is over.
    pub fn lost_or(&self, error: Error) -> Error {
        #[cfg(not(target_arch = "wasm32"))]
        {
            // A busy machine takes seconds for it.
            let timeout = Some(std::time::Duration::from_secs(20));
            let _ = self.device.poll(wgpu::PollType::Wait { submission_index: None, timeout });
        }
        match self.lost.get() {
            Some(reason) => Error::DeviceLost { reason: reason.clone() },
            None => error,
        }
    }

    /// The error of a lost device, or one that came outside any scope.
    pub fn check(&self) -> Result<()> {
        if let Some(reason) = self.lost.get() {
            return Err(Error::DeviceLost { reason: reason.clone() });
        }
        if let Some(error) = self.broken.get() {
            return Err(error.clone());
        }
        let uncaught = self.uncaught.lock().unwrap_or_else(PoisonError::into_inner).take();
        uncaught.map_or(Ok(()), |error| Err(self.lost_or(error)))
    }

    pub fn trim(&self) -> Result<()> {
        if let Some(guards) = &self.guards {
            guards.check_unasked(self)?;
        }
        for id in self.pool.drain() {
            self.forget(id);
        }
        #[cfg(not(target_arch = "wasm32"))]
        let _ = self.device.poll(wgpu::PollType::Poll);
        self.check()
    }

    /// Drops what is known of a buffer that will not come back.
    pub fn forget(&self, buffer: u32) {
        self.kernels.forget(buffer);
        self.guards.iter().for_each(|guards| guards.forget(buffer));
    }

    /// Waits for a submission, or for all where none is named.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
        self.check()?;
        polled.map(|_| ()).map_err(|error| self.lost_or(Error::Device { reason: error.to_string() }))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Somebody may hold a buffer that was handed out and wait for what is recorded to reach it.
        let mut recorder = std::mem::take(self.recorder.get_mut().unwrap_or_else(PoisonError::into_inner));
        let _ = recorder.flush(self);
        if self.kernels.pipelines_created.load(Ordering::Relaxed) > 0 && self.lost.get().is_none() {
            let _ = self.kernels.cache.save();
        }
    }
}

/// Runs `f` under error scopes. Their results are there at once on native; the web gives errors to the handler instead, since
/// nothing may block there.
pub(crate) fn scoped<T>(device: &wgpu::Device, f: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
    #[cfg(target_arch = "wasm32")]
    return Ok(f(device));
    #[cfg(not(target_arch = "wasm32"))]
    {
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal];
        let scopes = filters.map(|filter| device.push_error_scope(filter));
        let value = f(device);
        let mut first = None;
        for scope in scopes.into_iter().rev() {
            first = pollster::block_on(scope.pop()).or(first);
        }
        first.map_or(Ok(value), |error| Err(error.into()))
    }
}
