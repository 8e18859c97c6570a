//! One error type for the crate.

/// What can go wrong. Every mistake of a caller names the operator, the argument, what was expected and what came.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that the operator cannot take.
    #[error("{op}: {argument}: expected {expected}, got {got}")]
    Invalid {
        /// The operator, as the user calls it, such as `conv2d`.
        op: &'static str,
        /// The argument at fault, such as `weight`.
        argument: &'static str,
        /// What the operator could have taken.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// A tensor or a scratch buffer that the adapter cannot hold.
    #[error("{op}: {argument} needs {bytes} bytes, over the adapter's {limit_name} of {limit}")]
    TooLarge {
        /// The operator, as the user calls it.
        op: &'static str,
        /// The tensor at fault.
        argument: &'static str,
        /// Bytes that it needs; `u64::MAX` where the count itself overflows.
        bytes: u64,
        /// wgpu's name of the limit, or what else sets it.
        limit_name: &'static str,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Something was written beside a buffer's data: a defect of this crate or of the driver, which only a
    /// [guarded](crate::GpuBuilder::guarded) Gpu sees.
    #[error("{op}: {argument}: written outside of it: {found}")]
    Guard {
        /// The operator that made the buffer.
        op: &'static str,
        /// What the buffer is of that operator.
        argument: &'static str,
        /// Where, what is there now, and which kernels wrote to the buffer.
        found: String,
    },
    /// No adapter matches. `found` lists the ones that are there.
    #[error("no adapter {wanted}; found: {}", if .found.is_empty() { "none".to_string() } else { .found.join(", ") })]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// Names of the adapters that are there.
        found: Vec<String>,
    },
    /// The adapter refused to open a device.
    #[error("the adapter {adapter} opens no device: {reason}")]
    NoDevice {
        /// The adapter's name.
        adapter: String,
        /// wgpu's reason.
        reason: String,
    },
    /// A file that cannot be read, written or understood.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The device's memory is exhausted.
    #[error("out of device memory: {reason}")]
    OutOfMemory {
        /// What was being allocated, or wgpu's reason.
        reason: String,
    },
    /// The device is lost: removed, reset or destroyed. Open a new [`Gpu`](crate::Gpu).
    #[error("the device is lost: {reason}")]
    DeviceLost {
        /// wgpu's reason.
        reason: String,
    },
    /// The device reported an error that is none of the above: a defect of this crate, of wgpu or of the driver.
    #[error("device error: {reason}")]
    Device {
        /// wgpu's description.
        reason: String,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    pub(crate) fn invalid(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        got: impl core::fmt::Display,
    ) -> Self {
        Error::Invalid { op, argument, expected: expected.into(), got: got.to_string() }
    }
}

impl From<wgpu::Error> for Error {
    fn from(error: wgpu::Error) -> Self {
        match error {
            wgpu::Error::OutOfMemory { source } => Error::OutOfMemory { reason: source.to_string() },
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                Error::Device { reason: description }
            }
        }
    }
}
