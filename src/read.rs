//! Reading device memory back: async at the core, with a blocking twin on native.

use futures_intrusive::channel::shared::oneshot_channel;

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
    let mapped = start(staging, bytes);
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
    let mapped = start(staging, bytes);
    #[cfg(not(target_arch = "wasm32"))]
    {
        let (device, submission_index) = (gpu.device.clone(), index.clone());
        let wait = move || {
            let _ = device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
        };
        if std::thread::Builder::new().name("wgconv read".into()).spawn(wait).is_err() {
            // Where the system has no thread left, this one waits.
            gpu.wait(index)?;
        }
    }
    #[cfg(target_arch = "wasm32")]
    let _ = index;
    finish(gpu, staging, bytes, mapped).await
}

type Mapped = futures_intrusive::channel::shared::OneshotReceiver<core::result::Result<(), wgpu::BufferAsyncError>>;

fn start(staging: &wgpu::Buffer, bytes: u64) -> Mapped {
    let (sender, receiver) = oneshot_channel();
    staging.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
        let _ = sender.send(result);
    });
    receiver
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
