//! [`GpuBuilder`]: which adapter, with what limits and settings.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::tuning::Tuning;

/// Chooses the adapter and opens it.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, wgpu};
/// let gpu = Gpu::builder().adapter("llvmpipe").backends(wgpu::Backends::VULKAN).build_blocking()?;
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct GpuBuilder {
    adapter: Option<String>,
    backends: wgpu::Backends,
    power: wgpu::PowerPreference,
    limits: Option<wgpu::Limits>,
    features: Option<wgpu::Features>,
    settings: Settings,
}

/// What is asked for of whatever device it will be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub tuning: Tuning,
    pub cache: Cache,
    pub guarded: bool,
    pub max_work: Option<u64>,
}

impl Default for GpuBuilder {
    fn default() -> Self {
        Self {
            adapter: None,
            // Never the backend that runs nothing.
            backends: wgpu::Backends::all() - wgpu::Backends::NOOP,
            power: wgpu::PowerPreference::HighPerformance,
            limits: None,
            features: None,
            settings: Settings::default(),
        }
    }
}

impl GpuBuilder {
    /// Only an adapter whose name contains this, in any case.
    pub fn adapter(mut self, part_of_name: impl Into<String>) -> Self {
        self.adapter = Some(part_of_name.into());
        self
    }

    /// The part of a name that the environment variable `WGCONV_ADAPTER` holds, if it does. The library reads it only where this is
    /// called.
    pub fn adapter_from_env(mut self) -> Self {
        if let Some(name) = std::env::var("WGCONV_ADAPTER").ok().filter(|name| !name.is_empty()) {
            self.adapter = Some(name);
        }
        self
    }

    /// Only these backends.
    pub fn backends(mut self, backends: wgpu::Backends) -> Self {
        self.backends = backends - wgpu::Backends::NOOP;
        self
    }

    /// Which to prefer where there are several; the most powerful unless told.
    pub fn power_preference(mut self, power: wgpu::PowerPreference) -> Self {
        self.power = power;
        self
    }

    /// The limits to open the device with; all that the adapter has unless told.
    pub fn limits(mut self, limits: wgpu::Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// How kernels are chosen where none is asked for by name; by rules unless told.
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.settings.tuning = tuning;
        self
    }

    /// Where compiled pipelines and measurements are kept; in the user's cache folder unless told.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.settings.cache = cache;
        self
    }

    /// Puts guards around every buffer, to find defects: words of a known NaN before and behind the data of inputs, outputs, scratch memory
    /// and packed weights, and the same NaN in all that is not written yet; workgroup memory is NaN when a shader starts. A kernel that
    /// reads beside its data gets NaN, one that writes there is found by [`Gpu::check_guards`]; without guards the driver hides both. Slower,
    /// and every buffer takes a few KiB more. Memory that is freed is used again only after a check.
    /// [`Tensor::buffer`](crate::Tensor::buffer) is refused, since values do not start where a buffer does, and a
    /// buffer that was wrapped has no guards.
    pub fn guarded(mut self, guarded: bool) -> Self {
        self.settings.guarded = guarded;
        self
    }

    /// Floating-point operations that a dispatch and a submission have at most, as far as whole workgroups can be told apart; by default about
    /// half a second of a slow adapter. Fewer leave the adapter sooner to others, such as a user interface; the results are the same to the bit.
    pub fn max_work(mut self, operations: u64) -> Self {
        self.settings.max_work = Some(operations.max(1));
        self
    }

    /// The features to open the device with where the adapter has them; subgroups, timestamps, 64-bit integers and, unless the
    /// cache is off, the pipeline cache unless told.
    pub fn features(mut self, features: wgpu::Features) -> Self {
        self.features = Some(features);
        self
    }

    /// The adapters that there are, whatever was chosen.
    pub async fn list(&self) -> Vec<wgpu::Adapter> {
        self.instance().enumerate_adapters(self.backends).await
    }

    fn instance(&self) -> wgpu::Instance {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = self.backends;
        wgpu::Instance::new(descriptor)
    }

    async fn find(&self) -> Result<wgpu::Adapter> {
        let instance = self.instance();
        let mut adapters = instance.enumerate_adapters(self.backends).await;
        let found: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
        if let Some(part) = &self.adapter {
            let part = part.to_lowercase();
            adapters.retain(|adapter| adapter.get_info().name.to_lowercase().contains(&part));
        } else if cfg!(target_arch = "wasm32") {
            let options = wgpu::RequestAdapterOptions { power_preference: self.power, ..Default::default() };
            adapters = instance.request_adapter(&options).await.into_iter().collect();
        }
        let rank = |adapter: &wgpu::Adapter| match (adapter.get_info().device_type, self.power) {
            (wgpu::DeviceType::IntegratedGpu, wgpu::PowerPreference::LowPower) => 0,
            (wgpu::DeviceType::DiscreteGpu, _) => 1,
            (wgpu::DeviceType::IntegratedGpu, _) => 2,
            (wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other, _) => 3,
            (wgpu::DeviceType::Cpu, _) => 4,
        };
        adapters.into_iter().min_by_key(rank).ok_or_else(|| Error::NoAdapter {
            wanted: match &self.adapter {
                Some(name) => format!("whose name contains \"{name}\""),
                None => format!("for {:?}", self.backends & wgpu::Instance::enabled_backend_features()),
            },
            found,
        })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where none matches, [`Error::NoDevice`] where the adapter has less than the limits asked for,
    /// [`Error::File`] for a [`Tuning::File`] that cannot be read or holds something else.
    pub async fn build(self) -> Result<Gpu> {
        let adapter = self.find().await?;
        let mut wanted = wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SHADER_INT64;
        wanted.set(wgpu::Features::PIPELINE_CACHE, self.settings.cache.folder().is_some());
        let required_features = adapter.features() & self.features.unwrap_or(wanted);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgconv"),
            required_features,
            required_limits: self.limits.unwrap_or_else(|| adapter.limits()),
            ..Default::default()
        };
        let opened = adapter.request_device(&descriptor).await;
        let (device, queue) =
            opened.map_err(|error| Error::NoDevice { adapter: adapter.get_info().name, reason: error.to_string() })?;
        let lost = Arc::new(OnceLock::new());
        let uncaught = Arc::new(Mutex::new(None));
        let (lost_sink, error_sink) = (lost.clone(), uncaught.clone());
        device.set_device_lost_callback(move |reason, message| {
            let _ = lost_sink.set(format!("{reason:?} {message}"));
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            error_sink.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.into());
        }));
        Gpu::with(device, queue, self.settings, lost, uncaught)
    }

    /// [`Gpu::from_wgpu`] with what was chosen of tuning and cache; the rest is as the caller opened the device. Compiled pipelines are
    /// kept where it has `Features::PIPELINE_CACHE`.
    ///
    /// # Errors
    /// As [`Gpu::from_wgpu`], and [`Error::File`] as [`GpuBuilder::build`].
    pub fn wrap(self, device: wgpu::Device, queue: wgpu::Queue) -> Result<Gpu> {
        Gpu::with(device, queue, self.settings, Arc::default(), Arc::default())
    }

    /// [`GpuBuilder::build`], waiting for it.
    ///
    /// # Errors
    /// As [`GpuBuilder::build`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn build_blocking(self) -> Result<Gpu> {
        pollster::block_on(self.build())
    }
}
