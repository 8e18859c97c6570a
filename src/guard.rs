//! Guards: words of a known pattern around every buffer, which show what a kernel reads or writes beside its data.
//!
//! A driver's bounds checks hide a wrong index: a read beyond a binding gives some value and a write is dropped. Here the binding goes on
//! over the guard, so that the read gives NaN and the write leaves a mark.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::gpu::Inner;
use crate::pool::DeviceBuffer;
use crate::read;
use crate::record::Recorder;

/// Bytes by which the pattern of a buffer may lie further on than another's.
const SHIFTS: u64 = 64 << 10;

/// The words that guards are made of: quiet NaNs, each another. A kernel that hands the guard of its input on to that of its output, as an
/// element too many, would leave no mark if both were the same.
fn pattern(word: u64) -> u32 {
    0x7fc0_0000 | ((word as u32).wrapping_mul(0x9e37_79b1) >> 11) | 1
}

/// Where in the pattern a buffer begins, in bytes.
fn shift(id: u32) -> u64 {
    u64::from(id).wrapping_mul(0x2545_f491) % (SHIFTS / 4) * 4
}

/// Where in the pattern a byte of a buffer is.
fn source(id: u32, offset: u64) -> u64 {
    shift(id) + offset % POISON_BYTES
}

/// Bytes behind the data. A row of a few channels of a small image lies within them.
const TRAIL: u64 = 4096;

/// Bytes of the pattern of one buffer, which comes again after them.
const POISON_BYTES: u64 = 256 << 10;

/// Bytes of freed buffers that may wait for a check; beyond, one is made without being asked for.
const MOST_UNCHECKED: u64 = 256 << 20;

/// Writers of a buffer that are named.
const MOST_WRITERS: usize = 4;

/// What a guarded [`Gpu`](crate::Gpu) knows of its buffers.
pub(crate) struct Guards {
    /// Bytes before the data, a multiple of every alignment.
    pub lead: u64,
    poison: wgpu::Buffer,
    /// By id. Changes together with what is recorded for the buffer, under the recorder's lock, so that threads which check, take and give
    /// back at once agree on whose guards a copy holds.
    watched: Mutex<BTreeMap<u32, Watched>>,
    fills: AtomicU64,
    /// What checks that nobody asked for have found.
    found: Mutex<Option<Error>>,
}

/// A buffer with guards.
#[derive(Clone)]
struct Watched {
    raw: wgpu::Buffer,
    op: &'static str,
    argument: &'static str,
    /// Of the data, in whole vec4s: their stores may fill an odd tail up, which is the buffer's own. It is read as NaN all the same.
    bytes: u64,
    /// Which fill its guards are from: another number tells that the buffer has another owner, or that a check has mended it.
    fill: u64,
    /// Who has written to it since the last check.
    writers: Vec<String>,
}

/// Guards that are being read.
struct Reading {
    freed: Vec<u32>,
    watched: Vec<(u32, Watched)>,
    staging: wgpu::Buffer,
    index: Option<wgpu::SubmissionIndex>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer that holds the pattern, and in it what is given with its offset.
fn mapped(device: &wgpu::Device, bytes: u64, usage: wgpu::BufferUsages, inside: (u64, &[u8])) -> Result<wgpu::Buffer> {
    let label = Some("guarded");
    let buffer = device.create_buffer(&wgpu::BufferDescriptor { label, size: bytes, usage, mapped_at_creation: true });
    // As that of a buffer whose id is 0.
    let mut contents: Vec<u8> = (0..bytes / 4).flat_map(|word| pattern(word).to_le_bytes()).collect();
    contents[inside.0 as usize..][..inside.1.len()].copy_from_slice(inside.1);
    let written = buffer.get_mapped_range_mut(..).map(|mut view| view.copy_from_slice(&contents));
    written.map_err(|error| Error::OutOfMemory { reason: error.to_string() })?;
    buffer.unmap();
    Ok(buffer)
}

impl Guards {
    /// The guards of a device, and its buffer that stands for nothing between two of them.
    pub fn new(device: &wgpu::Device) -> Result<(Self, wgpu::Buffer)> {
        use wgpu::BufferUsages as Usage;
        let lead = u64::from(device.limits().min_storage_buffer_offset_alignment).max(256);
        let poison = mapped(device, POISON_BYTES + SHIFTS, Usage::COPY_SRC, (0, &[]))?;
        let nothing =
            mapped(device, lead + 16 + TRAIL, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST, (lead, &[0; 16]))?;
        let watched = Watched {
            raw: nothing.clone(),
            op: "all operators",
            argument: "what stands for an argument that is not given",
            bytes: 16,
            fill: 0,
            writers: Vec::new(),
        };
        let watched = Mutex::new([(0, watched)].into());
        Ok((Self { lead, poison, watched, fills: AtomicU64::new(1), found: Mutex::default() }, nothing))
    }

    /// Bytes that a buffer has beside its data.
    pub fn extra(&self) -> u64 {
        self.lead + TRAIL
    }

    /// Fills a buffer with the pattern, data and all, and watches it.
    pub fn watch(
        &self,
        gpu: &Inner,
        buffer: &DeviceBuffer,
        (op, argument): (&'static str, &'static str),
        bytes: u64,
    ) -> Result<()> {
        let mut recorder = gpu.lock_recorder();
        let fill = self.fill(gpu, &mut recorder, (buffer.id, &buffer.raw), (0, buffer.raw.size()))?;
        let bytes = bytes.next_multiple_of(16);
        let watched = Watched { raw: buffer.raw.clone(), op, argument, bytes, fill, writers: Vec::new() };
        lock(&self.watched).insert(buffer.id, watched);
        Ok(())
    }

    /// Records the copies of the pattern to so many bytes from an offset on; the number of this fill.
    fn fill(
        &self,
        gpu: &Inner,
        recorder: &mut Recorder,
        (id, raw): (u32, &wgpu::Buffer),
        (offset, bytes): (u64, u64),
    ) -> Result<u64> {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let piece = (POISON_BYTES - at % POISON_BYTES).min(end - at);
            recorder.copy(gpu, (&self.poison, source(id, at)), (raw, at), piece)?;
            at += piece;
        }
        Ok(self.fills.fetch_add(1, Ordering::Relaxed))
    }

    /// The buffer is gone.
    pub fn forget(&self, id: u32) {
        lock(&self.watched).remove(&id);
    }

    /// Somebody writes to a buffer.
    pub fn note(&self, id: u32, writer: impl FnOnce() -> String) {
        if let Some(watched) = lock(&self.watched).get_mut(&id).filter(|watched| watched.writers.len() < MOST_WRITERS) {
            let writer = writer();
            if !watched.writers.contains(&writer) {
                watched.writers.push(writer);
            }
        }
    }

    /// Checks before more freed buffers wait for it than memory should be spent on.
    pub fn check_if_due(&self, gpu: &Inner) -> Result<()> {
        if gpu.pool.unchecked_bytes() > MOST_UNCHECKED { self.check_unasked(gpu) } else { Ok(()) }
    }

    /// Checks and keeps what is found for the next check that is asked for. On the web, where nothing may wait, freed buffers go unchecked.
    pub fn check_unasked(&self, gpu: &Inner) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        return match self.check(gpu) {
            Err(error @ Error::Guard { .. }) => {
                lock(&self.found).get_or_insert(error);
                Ok(())
            }
            other => other,
        };
        #[cfg(target_arch = "wasm32")]
        {
            gpu.pool.release(&gpu.pool.unchecked());
            Ok(())
        }
    }

    /// Reads the guards of every buffer; those that were written to are made whole again. Buffers that were freed before can be used again.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn check(&self, gpu: &Inner) -> Result<()> {
        let reading = self.start(gpu)?;
        let bytes = read::map_blocking(gpu, &reading.staging, reading.staging.size(), reading.index.clone())?;
        self.judge(gpu, &reading, &bytes)
    }

    /// Offset and bytes of a buffer's two guards.
    fn of(&self, watched: &Watched) -> [(u64, u64); 2] {
        [(0, self.lead), (self.lead + watched.bytes, TRAIL)]
    }

    /// Records the copies of all guards and submits them.
    fn start(&self, gpu: &Inner) -> Result<Reading> {
        // Who is freed after this may still be written to after its guards were copied.
        let freed = gpu.pool.unchecked();
        let mut recorder = gpu.lock_recorder();
        let watched: Vec<(u32, Watched)> = lock(&self.watched).iter().map(|(id, w)| (*id, w.clone())).collect();
        let total = watched.iter().flat_map(|(_, w)| self.of(w)).map(|(_, bytes)| bytes).sum();
        // No second try, which would come here again.
        let staging = gpu.scoped(|device| read::staging(device, total))?;
        let mut at = 0;
        for (_, w) in &watched {
            for (offset, bytes) in self.of(w) {
                recorder.copy(gpu, (&w.raw, offset), (&staging, at), bytes)?;
                at += bytes;
            }
        }
        let index = recorder.flush(gpu)?;
        Ok(Reading { freed, watched, staging, index })
    }

    fn judge(&self, gpu: &Inner, reading: &Reading, bytes: &[u8]) -> Result<()> {
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(bytes);
        let mut words = &words[..];
        let mut errors: Vec<Error> = lock(&self.found).take().into_iter().collect();
        for (id, w) in &reading.watched {
            let mut marks = Vec::new();
            for (offset, bytes) in self.of(w) {
                let (here, rest) = words.split_at((bytes / 4) as usize);
                words = rest;
                let places = here.iter().enumerate().map(|(i, &word)| (offset + i as u64 * 4, word));
                marks.extend(places.filter(|&(at, word)| word != pattern(source(*id, at) / 4)));
            }
            if self.settle(gpu, *id, w, !marks.is_empty())? && !marks.is_empty() {
                errors.push(self.describe(w, &marks));
            }
        }
        gpu.pool.release(&reading.freed);
        let more = errors.len().saturating_sub(1);
        match errors.into_iter().next() {
            None => Ok(()),
            Some(Error::Guard { op, argument, found }) if more > 0 => {
                Err(Error::Guard { op, argument, found: format!("{found}; and so were {more} buffers more") })
            }
            Some(error) => Err(error),
        }
    }

    /// After a check has read a buffer's guards: makes them whole where they are not, and forgets who wrote until then. False where another
    /// check has done so since, which has told of the marks, or has given the buffer to somebody else.
    fn settle(&self, gpu: &Inner, id: u32, read: &Watched, marked: bool) -> Result<bool> {
        let mut recorder = gpu.lock_recorder();
        let mut watched = lock(&self.watched);
        let Some(now) = watched.get_mut(&id) else { return Ok(true) };
        if now.fill != read.fill {
            return Ok(false);
        }
        now.writers.retain(|writer| !read.writers.contains(writer));
        if marked {
            for guard in self.of(read) {
                now.fill = self.fill(gpu, &mut recorder, (id, &read.raw), guard)?;
            }
        }
        Ok(true)
    }

    /// `marks` are offsets into the buffer and what is there.
    fn describe(&self, w: &Watched, marks: &[(u64, u32)]) -> Error {
        let (at, word) = marks[0];
        let place = match at.checked_sub(self.lead + w.bytes) {
            Some(behind) => format!("{behind} bytes behind its {} bytes", w.bytes),
            None => format!("{} bytes before its {} bytes", self.lead - at, w.bytes),
        };
        let by = if w.writers.is_empty() { "nobody known".to_string() } else { w.writers.join(", ") };
        let value = f32::from_bits(word);
        let found = format!("{} words, the first {place}: {word:#010x} ({value:e}); its writers: {by}", marks.len());
        Error::Guard { op: w.op, argument: w.argument, found }
    }
}

/// The binding of data that ends in a guard: over the guard as well, as far as the limit allows.
pub(crate) fn binding_over(size: u64, guarded: bool, max_binding: u64) -> u64 {
    if guarded { (size + TRAIL).min(max_binding).max(size) } else { size }
}

impl crate::Gpu {
    /// Reads the guards of every buffer of a Gpu that was opened with [`GpuBuilder::guarded`](crate::GpuBuilder::guarded), those of freed
    /// buffers too. What was recorded is submitted and waited for. Without guards there is nothing to read.
    ///
    /// # Errors
    /// [`Error::Guard`] where something was written beside a buffer's data since the last check, with the operators that wrote to that
    /// buffer; and as [`Gpu::submit`](crate::Gpu::submit).
    ///
    /// # Example
    /// ```no_run
    /// use wgconv::{Activation, Gpu, Tensor, ndarray::Array1};
    /// let gpu = Gpu::builder().guarded(true).build_blocking()?;
    /// let y = Activation::Relu.forward(&Tensor::from_array(&gpu, &Array1::<f32>::ones(7))?)?;
    /// gpu.check_guards()?;
    /// # Ok::<(), wgconv::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn check_guards(&self) -> Result<()> {
        self.0.guards.as_ref().map_or(Ok(()), |guards| guards.check(&self.0))
    }

    /// [`Gpu::check_guards`](crate::Gpu::check_guards) without blocking, under any executor.
    ///
    /// # Errors
    /// As [`Gpu::check_guards`](crate::Gpu::check_guards).
    pub async fn check_guards_async(&self) -> Result<()> {
        let Some(guards) = &self.0.guards else { return Ok(()) };
        let reading = guards.start(&self.0)?;
        let bytes = read::map(&self.0, &reading.staging, reading.staging.size(), reading.index.clone()).await?;
        guards.judge(&self.0, &reading, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::activation::Activation;
    use crate::plan::Plan;
    use crate::run::Call;
    use crate::{Cache, Conv2d, Error, Gpu, Tensor, wgpu};
    use ndarray::{Array, ArrayD, IxDyn};

    fn open() -> Gpu {
        Gpu::builder().adapter_from_env().cache(Cache::Off).guarded(true).build_blocking().expect("an adapter")
    }

    fn count(gpu: &Gpu, shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        Tensor::from_slice(gpu, shape, &(1..=len).map(|i| i as f32).collect::<Vec<_>>()).expect("upload")
    }

    /// A plan for so many values, whatever the tensors hold.
    fn relu(gpu: &Gpu, values: usize, output: usize) -> Plan {
        Plan { output: vec![output], ..Activation::Relu.plan(gpu.profile(), &[values]).expect("plan") }
    }

    fn run(gpu: &Gpu, plan: Plan, x: &Tensor) -> Tensor {
        Call { gpu: gpu.clone(), plan, args: &[("input", Some(x))] }.forward().expect("forward")
    }

    #[track_caller]
    fn found(gpu: &Gpu) -> String {
        match gpu.check_guards() {
            Err(error @ Error::Guard { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_right_stays_right() {
        let gpu = open();
        for len in [1, 3, 4, 5, 37, 64, 1000, 70_001] {
            let x = count(&gpu, &[len]);
            let y = Activation::Relu.forward(&x).expect("forward");
            assert_eq!(y.to_array().expect("read"), x.to_array().expect("read"));
            gpu.check_guards().expect("nothing beside the data");
        }
        let before = gpu.counters().buffers;
        let (x, w) = (count(&gpu, &[1, 8, 9, 7]), Tensor::zeros(&gpu, &[12, 8, 3, 3]).expect("weight"));
        for _ in 0..3 {
            let y = Conv2d::new().padding(1).forward(&x, &w, None).expect("forward").to_array().expect("read");
            assert_eq!(y, ArrayD::<f32>::zeros(IxDyn(&[1, 12, 9, 7])));
            gpu.check_guards().expect("nothing beside the data");
        }
        assert!(gpu.counters().buffers < before + 12, "freed buffers are used again");
        assert!(gpu.trim().is_ok() && gpu.check_guards().is_ok());
        assert!(Gpu::new_blocking().expect("an adapter").check_guards().is_ok(), "without guards");
    }

    #[test]
    fn writes_beside_the_data_are_found() {
        let gpu = open();
        // Right behind the vec4s of the data, and far behind.
        for (values, words) in [(44, 4), (48, 8), (900, 860)] {
            let x = count(&gpu, &[values]);
            let y = run(&gpu, relu(&gpu, values, 37), &x);
            let error = found(&gpu);
            assert!(
                error.starts_with("activation: output: ") && error.contains("0 bytes behind its 160 bytes"),
                "{error}"
            );
            assert!(error.contains(&format!("{words} words")) && error.contains("activate.wgsl"), "{error}");
            assert!(y.to_array().expect("read").iter().zip(1..).all(|(y, i)| *y == i as f32));
            gpu.check_guards().expect("found once");
        }
        // Also where the buffer has gone before anybody looks, and where memory was trimmed.
        let x = count(&gpu, &[40]);
        drop(run(&gpu, relu(&gpu, 40, 33), &x));
        assert!(found(&gpu).contains("4 words"));
        drop(run(&gpu, relu(&gpu, 40, 32), &x));
        gpu.trim().expect("trim");
        assert!(found(&gpu).contains("8 words"));
        drop((run(&gpu, relu(&gpu, 40, 33), &x), run(&gpu, relu(&gpu, 40, 33), &x)));
        assert!(pollster::block_on(gpu.check_guards_async()).expect_err("two").to_string().contains("1 buffers more"));
    }

    /// What lies behind the input is a NaN, and the activation hands it on as it is.
    #[test]
    fn a_guard_that_is_copied_is_found() {
        let gpu = open();
        let x = count(&gpu, &[32]);
        let _y = run(&gpu, relu(&gpu, 36, 32), &x);
        assert!(found(&gpu).contains("4 words"));
    }

    #[test]
    fn a_mark_before_the_data_is_found() {
        let gpu = open();
        let (x, source) = (count(&gpu, &[4]), count(&gpu, &[4]));
        let (from, to) = ((&source.buffer.raw, source.buffer.lead), (&x.buffer.raw, x.buffer.lead - 8));
        gpu.0.lock_recorder().copy(&gpu.0, from, to, 8).expect("copy");
        let error = found(&gpu);
        assert!(error.contains("2 words, the first 8 bytes before its 16 bytes: 0x3f800000 (1e0)"), "{error}");
    }

    #[test]
    fn what_is_read_beside_the_data_or_never_written_is_nan() {
        let gpu = open();
        let got = run(&gpu, relu(&gpu, 41, 41), &count(&gpu, &[37])).to_array().expect("read");
        assert!(got.iter().take(37).zip(1..).all(|(y, i)| *y == i as f32) && got.iter().skip(37).all(|y| y.is_nan()));
        let short = run(&gpu, relu(&gpu, 8, 11), &count(&gpu, &[8])).to_array().expect("read");
        assert!(short.iter().skip(8).all(|y| y.is_nan()), "{short}");
        gpu.check_guards().expect("only reads");
    }

    #[test]
    fn bindings_at_their_limit_have_no_room_for_a_guard() {
        let limits = wgpu::Limits { max_storage_buffer_binding_size: 4096, ..wgpu::Limits::default() };
        let builder = Gpu::builder().adapter_from_env().cache(Cache::Off).limits(limits);
        let gpu = builder.guarded(true).build_blocking().expect("an adapter");
        for shape in [[1, 1, 32, 32], [2, 3, 40, 17]] {
            let x = count(&gpu, &shape);
            let w = Tensor::from_array(&gpu, &Array::from_elem((shape[1], 1, 1, 1), 2.0f32)).expect("weight");
            let y = Conv2d::new().groups(shape[1]).forward(&x, &w, None).expect("forward").to_array().expect("read");
            assert_eq!(y, x.to_array().expect("read") * 2.0);
            gpu.check_guards().expect("nothing beside the data");
        }
    }

    #[test]
    fn guarded_buffers_are_not_handed_out() {
        let gpu = open();
        let error = count(&gpu, &[4]).buffer().expect_err("guards before the values").to_string();
        assert!(error.starts_with("Tensor::buffer: tensor: expected one of a Gpu without guards"), "{error}");
    }
}
