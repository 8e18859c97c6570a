//! A plan: what one call of an operator will dispatch. Pure data, made without a GPU, printable.

use core::fmt;

/// A shader and the constants that its template is instantiated with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    pub shader: &'static str,
    constants: [(&'static str, u32); 8],
}

impl Instance {
    pub const fn new(shader: &'static str) -> Self {
        Self { shader, constants: [("", 0); 8] }
    }

    /// The instance with one more constant. At most eight: a ninth is a defect of this crate and fails to compile where
    /// instances are built in constants, and panics in the test of the list of instances elsewhere.
    pub const fn with(mut self, name: &'static str, value: u32) -> Self {
        let mut i = 0;
        while !self.constants[i].0.is_empty() {
            i += 1;
        }
        self.constants[i] = (name, value);
        self
    }

    pub fn constants(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.constants.into_iter().filter(|(name, _)| !name.is_empty())
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shader)?;
        for (i, (name, value)) in self.constants().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { " " } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of a dispatch's uniform parameters.
pub(crate) const PARAMS_BYTES: usize = 256;

/// The uniform parameters of one dispatch, zero past what the kernel's struct fills.
#[derive(Clone, Copy)]
pub(crate) struct Params(pub [u8; PARAMS_BYTES]);

impl Params {
    pub fn new<T: bytemuck::Pod>(params: &T) -> Self {
        let mut bytes = [0; PARAMS_BYTES];
        let source = bytemuck::bytes_of(params);
        bytes[..source.len()].copy_from_slice(source);
        Self(bytes)
    }
}

/// Which buffer a binding refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The i-th argument of the call.
    Arg(usize),
    /// The output.
    Out,
    /// The i-th scratch buffer.
    Scratch(usize),
    /// The packed weights.
    Packed,
    /// Sixteen bytes of zeros in place of an argument that is not given.
    Nothing,
}

/// A window of a buffer that a dispatch reads, or reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The buffer.
    pub slot: Slot,
    /// Byte offset, aligned to the adapter's storage offset alignment.
    pub offset: u64,
    /// Bytes, a multiple of 16; 0: the whole buffer.
    pub size: u64,
    /// Whether the dispatch writes to it.
    pub write: bool,
}

impl Binding {
    /// The whole buffer, to read.
    pub(crate) fn read(slot: Slot) -> Self {
        Self { slot, offset: 0, size: 0, write: false }
    }

    /// The whole buffer, to write (and read).
    pub(crate) fn write(slot: Slot) -> Self {
        Self { slot, offset: 0, size: 0, write: true }
    }
}

/// One dispatch.
#[derive(Clone)]
pub(crate) struct Step {
    pub instance: Instance,
    pub params: Params,
    pub bindings: Vec<Binding>,
    /// Workgroups; folded into three axes when dispatched.
    pub groups: u64,
    /// Estimated floating-point operations, to bound the work of a submission.
    pub work: u64,
}

/// Packed weights: made from one argument by the first steps, and kept where that argument cannot change.
#[derive(Clone)]
pub(crate) struct Pack {
    /// The argument that is packed.
    pub arg: usize,
    /// Tells apart different packings of the same tensor.
    pub key: PackKey,
    pub bytes: u64,
    pub steps: Vec<Step>,
}

/// The packing's kernel and the numbers that its layout depends on.
pub(crate) type PackKey = (&'static str, [u32; 8]);

/// What one call of an operator will dispatch: the kernel chosen, its constants, workgroups and scratch memory.
///
/// A plan depends on the options, the shapes and the adapter's [`Profile`](crate::Profile) alone. Print it to see it.
#[derive(Clone)]
pub struct Plan {
    pub(crate) op: &'static str,
    pub(crate) kernel: &'static str,
    pub(crate) output: Vec<usize>,
    pub(crate) pack: Option<Pack>,
    pub(crate) scratch: Vec<u64>,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// The operator's name.
    #[must_use]
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The name of the kernel that was chosen.
    #[must_use]
    pub fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// The output's shape.
    #[must_use]
    pub fn output_shape(&self) -> &[usize] {
        &self.output
    }

    /// Bytes of scratch memory during the call, without packed weights.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch.iter().sum()
    }

    /// Bytes of the packed copy of the weights; 0 where they are used as they are.
    #[must_use]
    pub fn packed_bytes(&self) -> u64 {
        self.pack.as_ref().map_or(0, |pack| pack.bytes)
    }

    /// Number of dispatches, those that pack the weights left out.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// All steps, packing first.
    pub(crate) fn all_steps(&self) -> impl Iterator<Item = &Step> {
        self.pack.iter().flat_map(|pack| &pack.steps).chain(&self.steps)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {:?}: {}", self.op, self.output, self.kernel)?;
        write!(f, ", scratch {} B, packed weights {} B", self.scratch_bytes(), self.packed_bytes())?;
        for step in self.all_steps() {
            write!(f, "\n  {} x {} workgroups", step.instance, step.groups)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
