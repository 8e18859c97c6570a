//! Reading device memory back: async at the core, with a blocking twin on native.

use std::sync::Arc;

use futures_intrusive::channel::shared::{OneshotReceiver, OneshotSender, oneshot_channel};

use crate::error::{Error, Result};
use crate::gpu::Inner;

/// A buffer to read back through.
pub(crate) fn staging(device: &wgpu::Device, bytes: u64) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("read back"),
        size: bytes,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// Maps the first `bytes` of a staging buffer and copies them out, waiting.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn map_blocking(
    gpu: &Inner,
    staging: &wgpu::Buffer,
    bytes: u64,
    index: Option<wgpu::SubmissionIndex>,
) -> Result<Vec<u8>> {
    let (mapped, _) = start(staging, bytes);
    gpu.wait(index)?;
    pollster::block_on(finish(gpu, staging, bytes, mapped))
}

/// The same without waiting in the caller's thread. Native has nobody who polls the device, so a thread does until the map is
/// there; the future is ready under any executor.
pub(crate) async fn map(
    gpu: &Inner,
    staging: &wgpu::Buffer,
    bytes: u64,
    index: Option<wgpu::SubmissionIndex>,
) -> Result<Vec<u8>> {
    let (mapped, sender) = start(staging, bytes);
    #[cfg(not(target_arch = "wasm32"))]
    {
        let (device, lost, submission_index) = (gpu.device.clone(), gpu.lost.clone(), index.clone());
        let wait = move || {
            let polled = device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
            // A device that is lost may leave its maps unanswered.
            if polled.is_err() || lost.get().is_some() {
                let _ = sender.send(Err(wgpu::BufferAsyncError));
            }
        };
        if std::thread::Builder::new().name("wgconv read".into()).spawn(wait).is_err() {
            // Where the system has no thread left, this one waits.
            gpu.wait(index)?;
        }
    }
    #[cfg(target_arch = "wasm32")]
    let _ = (index, sender);
    finish(gpu, staging, bytes, mapped).await
}

type Mapped = OneshotReceiver<core::result::Result<(), wgpu::BufferAsyncError>>;
type Sender = Arc<OneshotSender<core::result::Result<(), wgpu::BufferAsyncError>>>;

/// Asks for the map. The first answer counts, the device's or one given in its place.
fn start(staging: &wgpu::Buffer, bytes: u64) -> (Mapped, Sender) {
    let (sender, receiver) = oneshot_channel();
    let sender = Arc::new(sender);
    let answer = sender.clone();
    staging.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
        let _ = answer.send(result);
    });
    (receiver, sender)
}

async fn finish(gpu: &Inner, staging: &wgpu::Buffer, bytes: u64, mapped: Mapped) -> Result<Vec<u8>> {
    let result = mapped.receive().await;
    gpu.check()?;
    match result {
        Some(Ok(())) => {
            let view =
                staging.get_mapped_range(0..bytes).map_err(|e| gpu.lost_or(Error::Device { reason: e.to_string() }))?;
            let data = view.to_vec();
            drop(view);
            staging.unmap();
            Ok(data)
        }
        Some(Err(error)) => Err(gpu.lost_or(Error::Device { reason: error.to_string() })),
        None => Err(Error::DeviceLost { reason: "the read was given up".into() }),
    }
}
