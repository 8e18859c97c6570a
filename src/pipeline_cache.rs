//! Compiled pipelines that outlive the process: wgpu's pipeline cache, which Vulkan has, in a file.
//!
//! The one module with unsafe code: wgpu hands the file's contents to the driver, which may trust them.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::cache;
use crate::error::Result;
use crate::gpu::scoped;

const MAGIC: [u8; 8] = *b"WGCONVPC";
/// Magic, length and checksum of the data.
const HEADER_BYTES: usize = MAGIC.len() + 8 + 4;

/// wgpu's pipeline cache and its file; neither where the device has none or nothing is to be kept.
#[derive(Default)]
pub(crate) struct PipelineCache {
    raw: Option<wgpu::PipelineCache>,
    file: PathBuf,
    /// What the file holds, as far as we know.
    saved: Mutex<Option<u32>>,
}

impl PipelineCache {
    /// Opens the cache of a device, with the contents of its file where there is one and it is whole.
    pub fn open(device: &wgpu::Device, folder: &Path) -> Self {
        let name = wgpu::util::pipeline_cache_key(&device.adapter_info());
        let Some(name) = name.filter(|_| device.features().contains(wgpu::Features::PIPELINE_CACHE)) else {
            return Self::default();
        };
        let file = folder.join(cache::file_name(&[&name, env!("CARGO_PKG_VERSION")], "bin"));
        let contents = std::fs::read(&file).ok();
        let data = contents.as_deref().and_then(unwrap);
        let create = |data| {
            scoped(device, |device| {
                let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgconv"), data, fallback: true };
                // SAFETY: the data must have come from `PipelineCache::get_data`. `unwrap` gives what `wrap` was given, which is
                // called with that alone: a file of anything else, or one that was cut off or damaged, fails its magic, length
                // or checksum. wgpu compares its own header, and with it the device and driver, before the driver sees the rest.
                // Who forges the file can write to the user's own cache folder, and so to the user's programs.
                unsafe { device.create_pipeline_cache(&descriptor) }
            })
        };
        // Another device's data is an error to wgpu, and one that fails for another reason is not worth more than an empty one.
        let (raw, saved) = match create(data) {
            Ok(raw) => (Some(raw), data.map(crc32fast::hash)),
            Err(_) => (create(None).ok(), None),
        };
        Self { raw, file, saved: Mutex::new(saved) }
    }

    /// For pipelines to be compiled through.
    pub fn raw(&self) -> Option<&wgpu::PipelineCache> {
        self.raw.as_ref()
    }

    /// Writes the file, unless it holds the same already.
    pub fn save(&self) -> Result<()> {
        let Some(data) = self.raw.as_ref().and_then(wgpu::PipelineCache::get_data) else { return Ok(()) };
        let checksum = Some(crc32fast::hash(&data));
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if *saved != checksum {
            cache::write(&self.file, &wrap(&data))?;
            *saved = checksum;
        }
        Ok(())
    }
}

/// What stands before the data in the file.
fn header(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&MAGIC[..], &length, &crc32fast::hash(data).to_le_bytes()].concat()
}

/// The file's contents.
fn wrap(data: &[u8]) -> Vec<u8> {
    [&header(data), data].concat()
}

/// The data of a file that is whole.
pub(crate) fn unwrap(contents: &[u8]) -> Option<&[u8]> {
    let (before, data) = contents.split_at_checked(HEADER_BYTES)?;
    (before == header(data)).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::{unwrap, wrap};

    #[test]
    fn only_a_whole_file_is_taken() {
        let data: Vec<u8> = (0..200u8).collect();
        let file = wrap(&data);
        assert_eq!(unwrap(&file), Some(&data[..]));
        assert_eq!(unwrap(&wrap(&[])), Some(&[][..]));
        for length in 0..file.len() {
            assert_eq!(unwrap(&file[..length]), None, "cut off after {length} bytes");
        }
        assert_eq!(unwrap(&[&file[..], &[0]].concat()), None, "longer");
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 4;
            assert_eq!(unwrap(&damaged), None, "byte {at} changed");
        }
    }
}
