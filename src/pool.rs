//! Device buffers that are used again: a freed buffer waits in the pool for the next tensor of its size class.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::error::{Error, Result};
use crate::gpu::Inner;
use crate::guard::Guards;

/// Bytes that the pool keeps at most; what comes back beyond is freed.
const KEEP_BYTES: u64 = 1 << 30;

/// A buffer of a tensor, of scratch or of packed weights. Goes back to the pool when dropped.
pub(crate) struct DeviceBuffer {
    pub raw: wgpu::Buffer,
    /// Unique in the process; bind groups are kept under it.
    pub id: u32,
    gpu: Weak<Inner>,
    /// Size class in the pool; 0 for a wrapped buffer.
    class: u64,
    /// Bytes before the data: the guard, where there is one.
    pub lead: u64,
    /// Somebody else may hold the buffer: it is not used again, and nothing made from its contents is kept.
    pub exposed: AtomicBool,
    /// It was written a second time, by `forward_into`: nothing made from its contents is kept.
    pub rewritten: AtomicBool,
    /// Encoders of the caller's that use it and may not be submitted yet: it is not used again while there are any.
    pub held: AtomicU32,
}

impl DeviceBuffer {
    pub fn wrap(raw: wgpu::Buffer, gpu: &Arc<Inner>) -> Self {
        let buffer = Self::new(raw, next_id(), gpu, 0);
        buffer.exposed.store(true, Ordering::Release);
        buffer
    }

    fn new(raw: wgpu::Buffer, id: u32, gpu: &Arc<Inner>, class: u64) -> Self {
        let (exposed, rewritten, held) = Default::default();
        let lead = if class > 0 { gpu.guards.as_ref().map_or(0, |guards| guards.lead) } else { 0 };
        Self { raw, id, gpu: Arc::downgrade(gpu), class, lead, exposed, rewritten, held }
    }

    /// Whether it is the caller's, of whatever size and usage.
    pub fn wrapped(&self) -> bool {
        self.class == 0
    }

    /// Whether guards stand around the data.
    pub fn guarded(&self) -> bool {
        self.lead > 0
    }

    /// Whether its contents can change without this crate seeing it.
    pub fn may_change(&self) -> bool {
        self.exposed.load(Ordering::Acquire) || self.rewritten.load(Ordering::Acquire)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        let Some(gpu) = self.gpu.upgrade() else { return };
        let free = !self.exposed.load(Ordering::Acquire) && self.held.load(Ordering::Acquire) == 0;
        if self.class > 0 {
            if free && gpu.pool.give(self) {
                return;
            }
            gpu.pool.live.fetch_sub(1, Ordering::Relaxed);
        }
        gpu.forget(self.id);
    }
}

fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[derive(Default)]
pub(crate) struct Pool {
    free: Mutex<Free>,
    pub created: AtomicU64,
    /// Buffers that there are, in use or free.
    pub live: AtomicU64,
}

#[derive(Default)]
struct Free {
    /// By id: the lowest is used first, so that the same calls get the same buffers, and so the same bind groups, every time.
    by_class: HashMap<u64, BTreeMap<u32, wgpu::Buffer>>,
    bytes: u64,
    /// By id, with its class: what has guards that were not checked since it came back.
    unchecked: BTreeMap<u32, (u64, wgpu::Buffer)>,
    unchecked_bytes: u64,
}

/// Bytes of the uniform arrays that a tensor can be bound as, whole: its buffer is as long as the least that holds it.
pub(crate) const UNIFORM_SIZES: [u64; 3] = [16 << 10, 32 << 10, 64 << 10];

/// The size of the uniform array that a tensor of so many bytes can be bound as, of which it fills more than half.
pub(crate) fn uniform_size(bytes: u64) -> Option<u64> {
    UNIFORM_SIZES.into_iter().find(|&size| bytes <= size && bytes > size / 2)
}

/// Size classes: powers of two up to the largest uniform array, then eight to an octave, so that at most an eighth is wasted.
fn size_class(bytes: u64, max: u64) -> u64 {
    let bytes = bytes.max(16);
    if bytes <= UNIFORM_SIZES[2] {
        return bytes.next_power_of_two().max(256);
    }
    let step = (1 << bytes.ilog2()) / 8;
    bytes.div_ceil(step).saturating_mul(step).min((max / 16 * 16).max(bytes.next_multiple_of(16)))
}

impl Pool {
    /// A buffer of at least `bytes`, of whatever contents.
    pub fn take(gpu: &Arc<Inner>, op: &'static str, argument: &'static str, bytes: u64) -> Result<DeviceBuffer> {
        let Some(guards) = &gpu.guards else { return Self::take_plain(gpu, op, argument, bytes) };
        guards.check_if_due(gpu)?;
        let buffer = Self::take_plain(gpu, op, argument, bytes)?;
        guards.watch(gpu, &buffer, (op, argument), bytes)?;
        Ok(buffer)
    }

    fn take_plain(gpu: &Arc<Inner>, op: &'static str, argument: &'static str, bytes: u64) -> Result<DeviceBuffer> {
        let extra = gpu.guards.as_ref().map_or(0, Guards::extra);
        let class = size_class(bytes, gpu.profile.max_buffer.saturating_sub(extra));
        if class.saturating_add(extra) > gpu.profile.max_buffer {
            let limit = gpu.profile.max_buffer;
            return Err(Error::TooLarge { op, argument, bytes, limit_name: "max_buffer_size", limit });
        }
        let wrap = |raw, id| DeviceBuffer::new(raw, id, gpu, class);
        if let Some((id, raw)) = gpu.pool.reuse(class) {
            return Ok(wrap(raw, id));
        }
        let mut usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        usage.set(wgpu::BufferUsages::UNIFORM, UNIFORM_SIZES.contains(&class));
        let raw = gpu.allocate(|device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(argument),
                size: class + extra,
                usage,
                mapped_at_creation: false,
            })
        })?;
        gpu.pool.created.fetch_add(1, Ordering::Relaxed);
        gpu.pool.live.fetch_add(1, Ordering::Relaxed);
        Ok(wrap(raw, next_id()))
    }

    fn reuse(&self, class: u64) -> Option<(u32, wgpu::Buffer)> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let found = free.by_class.get_mut(&class)?.pop_first()?;
        free.bytes -= class;
        Some(found)
    }

    /// Takes a buffer back; false where the pool is full.
    fn give(&self, buffer: &DeviceBuffer) -> bool {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.bytes + buffer.class > KEEP_BYTES {
            return false;
        }
        free.bytes += buffer.class;
        if buffer.guarded() {
            free.unchecked.insert(buffer.id, (buffer.class, buffer.raw.clone()));
            free.unchecked_bytes += buffer.raw.size();
            return true;
        }
        free.by_class.entry(buffer.class).or_default().insert(buffer.id, buffer.raw.clone());
        true
    }

    /// Empties the pool; the ids of what was in it.
    pub fn drain(&self) -> Vec<u32> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.bytes = 0;
        free.unchecked_bytes = 0;
        let unchecked = std::mem::take(&mut free.unchecked).into_keys();
        let ids: Vec<u32> =
            free.by_class.drain().flat_map(|(_, buffers)| buffers.into_keys()).chain(unchecked).collect();
        self.live.fetch_sub(ids.len() as u64, Ordering::Relaxed);
        ids
    }

    /// Bytes that wait for a check of their guards.
    pub fn unchecked_bytes(&self) -> u64 {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).unchecked_bytes
    }

    /// The ids of what waits for that.
    pub fn unchecked(&self) -> Vec<u32> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).unchecked.keys().copied().collect()
    }

    /// The guards of these were checked: they can be used again.
    pub fn release(&self, checked: &[u32]) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        for id in checked {
            if let Some((class, raw)) = free.unchecked.remove(id) {
                free.unchecked_bytes -= raw.size();
                free.by_class.entry(class).or_default().insert(*id, raw);
            }
        }
    }

    /// Bytes that wait in the pool.
    pub fn bytes(&self) -> u64 {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{UNIFORM_SIZES, size_class, uniform_size};

    #[test]
    fn a_class_holds_its_bytes_and_wastes_an_eighth() {
        for bytes in [0, 1, 255, 256, 257, 4096, 4097, 5000, 65536, 65537, 1 << 20, (1 << 20) + 4, 123_456_789] {
            let class = size_class(bytes, u64::MAX);
            assert!(class >= bytes && class.is_multiple_of(16), "{bytes} in {class}");
            assert!(bytes <= 65536 || class <= bytes + bytes / 8 + 16, "{bytes} in {class}");
        }
        assert_eq!(size_class(1000 << 20, 1001 << 20), 1001 << 20);
        assert!(size_class(u64::MAX - 15, u64::MAX) >= u64::MAX - 15);
    }

    /// A uniform array reaches to the end of its buffer and no further.
    #[test]
    fn a_uniform_array_is_as_long_as_its_buffer() {
        for bytes in (16..=70_000).step_by(16) {
            let expected = (bytes > 8 << 10 && bytes <= 64 << 10).then(|| size_class(bytes, u64::MAX));
            assert_eq!(uniform_size(bytes), expected, "{bytes}");
        }
        assert!(UNIFORM_SIZES.iter().all(|&size| uniform_size(size) == Some(size)));
    }
}
