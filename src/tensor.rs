//! [`Tensor`]: a shape and a device buffer; ndarray in and out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn};

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::PackKey;
use crate::pool::{DeviceBuffer, Pool};
use crate::read;

/// A dense f32 tensor on a device, row-major. Clones are cheap and share the buffer. It holds its [`Gpu`], so that operators
/// need no other context.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, Tensor, ndarray::Array4};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::from_array(&gpu, &Array4::<f32>::zeros((1, 3, 224, 224)))?;
/// assert_eq!(x.shape(), [1, 3, 224, 224]);
/// let back = x.to_array()?;
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    gpu: Gpu,
    shape: Vec<usize>,
    pub(crate) buffer: Arc<DeviceBuffer>,
    pub(crate) packed: Arc<PackedWeights>,
}

/// Packed copies of a tensor's values, one for each way of packing.
#[derive(Default)]
pub(crate) struct PackedWeights {
    kept: Mutex<Vec<(PackKey, Arc<DeviceBuffer>)>>,
    /// The values cannot change, or the user has promised so by `prepare`.
    pub promised: bool,
}

impl PackedWeights {
    pub fn promised() -> Self {
        Self { promised: true, ..Self::default() }
    }

    pub fn get(&self, key: &PackKey) -> Option<Arc<DeviceBuffer>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(k, _)| k == key).map(|(_, buffer)| buffer.clone())
    }

    pub fn keep(&self, key: PackKey, buffer: Arc<DeviceBuffer>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Two threads may have packed at the same time.
        if kept.iter().all(|(k, _)| *k != key) {
            kept.push((key, buffer));
        }
    }
}

/// Bytes of a tensor's binding: whole vec4s, since a shader's `array<vec4<f32>>` cannot reach an odd tail.
pub(crate) fn byte_count(op: &'static str, argument: &'static str, shape: &[usize], max_buffer: u64) -> Result<u64> {
    let count = shape.iter().try_fold(4u64, |product, &extent| product.checked_mul(extent as u64));
    let bytes = count.and_then(|bytes| bytes.checked_next_multiple_of(16)).unwrap_or(u64::MAX);
    // Element indices in shaders are 32 bits wide.
    let indexed = i32::MAX as u64 * 4;
    let (limit_name, limit) =
        if max_buffer < indexed { ("max_buffer_size", max_buffer) } else { ("reach of 32-bit indices", indexed) };
    if bytes > limit { Err(Error::TooLarge { op, argument, bytes, limit_name, limit }) } else { Ok(bytes) }
}

impl Tensor {
    /// Uploads an array. The copy is recorded before whatever uses the tensor.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the array is empty; [`Error::TooLarge`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn from_array<S, D>(gpu: &Gpu, array: &ArrayBase<S, D>) -> Result<Self>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        let standard = array.as_standard_layout();
        match standard.as_slice() {
            Some(values) => Self::from_slice(gpu, array.shape(), values),
            None => {
                Err(Error::invalid("Tensor::from_array", "array", "a dense array", format!("{:?}", array.strides())))
            }
        }
    }

    /// Uploads values in row-major order.
    ///
    /// # Errors
    /// As [`Tensor::from_array`], and [`Error::Invalid`] where the number of values is not the shape's.
    pub fn from_slice(gpu: &Gpu, shape: &[usize], values: &[f32]) -> Result<Self> {
        let op = "Tensor::from_slice";
        let tensor = Self::uninit(gpu, op, "array", shape)?;
        let count: usize = shape.iter().product();
        if values.len() != count {
            return Err(Error::invalid(op, "values", format!("{count} values for shape {shape:?}"), values.len()));
        }
        let bytes: &[u8] = bytemuck::cast_slice(values);
        // Guards begin at the last value.
        let copied = if tensor.buffer.guarded() { bytes.len() as u64 } else { tensor.bytes() };
        let staging = gpu.0.allocate(|device| {
            let staging = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("upload"),
                size: tensor.bytes(),
                usage: wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            });
            staging.get_mapped_range_mut(..).map(|mut view| view.slice(..bytes.len()).copy_from_slice(bytes)).map(
                |()| {
                    staging.unmap();
                    staging
                },
            )
        })?;
        let staging = staging.map_err(|error| gpu.0.lost_or(Error::OutOfMemory { reason: error.to_string() }))?;
        gpu.0.lock_recorder().copy(&gpu.0, (&staging, 0), (&tensor.buffer.raw, tensor.buffer.lead), copied)?;
        Ok(tensor)
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// As [`Tensor::from_array`].
    pub fn zeros(gpu: &Gpu, shape: &[usize]) -> Result<Self> {
        byte_count("Tensor::zeros", "shape", shape, gpu.0.profile.max_buffer)?;
        Self::from_slice(gpu, shape, &vec![0.0; shape.iter().product()])
    }

    /// Wraps a buffer of the caller's, which holds the values from its start. It stays the caller's: it may be written between
    /// operators, but [`Gpu::submit`] must come before a write by other means than operators, since what is recorded would run after it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the buffer is smaller than the shape rounded up to 16 bytes, or has no `STORAGE` usage (and
    /// `COPY_SRC`, to read it back).
    pub fn from_buffer(gpu: &Gpu, buffer: wgpu::Buffer, shape: &[usize]) -> Result<Self> {
        let op = "Tensor::from_buffer";
        check_extents(op, "shape", shape)?;
        let bytes = byte_count(op, "shape", shape, gpu.0.profile.max_buffer)?;
        if buffer.size() < bytes {
            return Err(Error::invalid(op, "buffer", format!("{bytes} bytes for shape {shape:?}"), buffer.size()));
        }
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::invalid(op, "buffer", "usage STORAGE", format!("{:?}", buffer.usage())));
        }
        let buffer = Arc::new(DeviceBuffer::wrap(buffer, &gpu.0));
        Ok(Self { gpu: gpu.clone(), shape: shape.to_vec(), buffer, packed: Arc::default() })
    }

    /// A tensor of whatever contents, for an operator to write.
    pub(crate) fn uninit(gpu: &Gpu, op: &'static str, argument: &'static str, shape: &[usize]) -> Result<Self> {
        check_extents(op, argument, shape)?;
        byte_count(op, argument, shape, gpu.0.profile.max_buffer)?;
        let bytes = shape.iter().product::<usize>() as u64 * 4;
        let buffer = Arc::new(Pool::take(&gpu.0, op, argument, bytes)?);
        Ok(Self { gpu: gpu.clone(), shape: shape.to_vec(), buffer, packed: Arc::default() })
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Never true: a tensor has at least one element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device that it lives on.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Bytes of its binding.
    pub(crate) fn bytes(&self) -> u64 {
        (self.len() as u64 * 4).next_multiple_of(16)
    }

    /// The same values in another shape.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        check_extents("Tensor::reshape", "shape", shape)?;
        let count = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        if count != Some(self.len()) {
            let expected = format!("{} elements, as in {:?}", self.len(), self.shape);
            return Err(Error::invalid("Tensor::reshape", "shape", expected, format!("{shape:?}")));
        }
        // Packed copies depend on the weight's shape only through their key.
        Ok(Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// The device buffer, after submitting what is recorded. It holds the values from its start and may be longer than they are.
    ///
    /// # Errors
    /// As [`Gpu::submit`], and [`Error::Invalid`] where guards stand before the values ([`GpuBuilder::guarded`](crate::GpuBuilder::guarded)).
    pub fn buffer(&self) -> Result<&wgpu::Buffer> {
        if self.buffer.guarded() {
            let expected = "one of a Gpu without guards, or one that was wrapped";
            return Err(Error::invalid("Tensor::buffer", "tensor", expected, "one with guards"));
        }
        self.buffer.exposed.store(true, Ordering::Release);
        self.gpu.submit()?;
        Ok(&self.buffer.raw)
    }

    /// Whether packed copies of the values may be kept: nobody can change them unseen.
    pub(crate) fn may_keep_packed(&self) -> bool {
        self.packed.promised || !self.buffer.may_change()
    }

    /// Reads the values, waiting for whatever makes them.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`], [`Error::Device`]: of this read or of what was recorded before it.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn to_array(&self) -> Result<ArrayD<f32>> {
        let (staging, index) = self.record_read()?;
        self.array(&read::map_blocking(&self.gpu.0, &staging, self.bytes(), index)?)
    }

    /// [`Tensor::to_array`] without blocking, under any executor.
    ///
    /// # Errors
    /// As [`Tensor::to_array`].
    pub async fn to_array_async(&self) -> Result<ArrayD<f32>> {
        let (staging, index) = self.record_read()?;
        self.array(&read::map(&self.gpu.0, &staging, self.bytes(), index).await?)
    }

    /// The same buffer, of which the user promises that it does not change.
    pub(crate) fn promised(&self) -> Self {
        Self { packed: Arc::new(PackedWeights::promised()), ..self.clone() }
    }

    fn record_read(&self) -> Result<(wgpu::Buffer, Option<wgpu::SubmissionIndex>)> {
        let gpu = &self.gpu.0;
        let staging = gpu.allocate(|device| read::staging(device, self.bytes()))?;
        let mut recorder = gpu.lock_recorder();
        recorder.copy(gpu, (&self.buffer.raw, self.buffer.lead), (&staging, 0), self.bytes())?;
        let index = recorder.flush_last(gpu)?;
        Ok((staging, index))
    }

    fn array(&self, bytes: &[u8]) -> Result<ArrayD<f32>> {
        let values = bytemuck::pod_collect_to_vec(&bytes[..self.len() * 4]);
        ArrayD::from_shape_vec(IxDyn(&self.shape), values).map_err(|error| Error::Device { reason: error.to_string() })
    }
}

fn check_extents(op: &'static str, argument: &'static str, shape: &[usize]) -> Result<()> {
    if shape.contains(&0) {
        return Err(Error::invalid(op, argument, "no empty dimension", format!("{shape:?}")));
    }
    Ok(())
}

impl core::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Tensor{:?}", self.shape)
    }
}
