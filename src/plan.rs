//! A plan: what one call of an operator will dispatch. Pure data, made without a GPU, printable.

use core::fmt;

use crate::profile::Profile;

/// A shader and the constants that its template is instantiated with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    pub shader: &'static str,
    constants: [(&'static str, u32); Self::MOST_CONSTANTS],
}

impl Instance {
    const MOST_CONSTANTS: usize = 9;

    pub const fn new(shader: &'static str) -> Self {
        Self { shader, constants: [("", 0); Self::MOST_CONSTANTS] }
    }

    /// The instance with one more constant. Of more than fit, the first is a defect of this crate and fails to compile where
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

/// Bytes before the kernel's own parameters: `first_group`, which each shader's struct starts with.
pub(crate) const HEAD_BYTES: usize = 4;

/// The uniform parameters of one dispatch, zero past what the kernel's struct fills.
#[derive(Clone, Copy)]
pub(crate) struct Params(pub [u8; PARAMS_BYTES]);

impl Params {
    pub fn new<T: bytemuck::Pod>(params: &T) -> Self {
        let mut bytes = [0; PARAMS_BYTES];
        let source = bytemuck::bytes_of(params);
        bytes[HEAD_BYTES..][..source.len()].copy_from_slice(source);
        Self(bytes)
    }

    /// The same for a dispatch that starts with another workgroup than the first.
    fn starting(mut self, first_group: u32) -> Self {
        self.0[..HEAD_BYTES].copy_from_slice(&first_group.to_ne_bytes());
        self
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
    /// Bytes, a multiple of 16; 0: all of the data.
    pub size: u64,
    /// What the dispatch does with it.
    pub access: Access,
}

/// What a dispatch does with a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads a storage buffer.
    Read,
    /// Reads and writes a storage buffer.
    Write,
    /// Reads a uniform buffer of exactly the binding's size, which may reach past the data into the rest of its buffer.
    Uniform,
}

impl Binding {
    /// The whole buffer, to read.
    pub(crate) fn read(slot: Slot) -> Self {
        Self { slot, offset: 0, size: 0, access: Access::Read }
    }

    /// All of the data as a uniform array of so many bytes ([`uniform_size`](crate::pool::uniform_size)).
    pub(crate) fn uniform(slot: Slot, size: u64) -> Self {
        Self { slot, offset: 0, size, access: Access::Uniform }
    }

    /// The whole buffer, to write (and read).
    pub(crate) fn write(slot: Slot) -> Self {
        Self { slot, offset: 0, size: 0, access: Access::Write }
    }
}

/// Dispatches that one is cut into at most, however little work each may have: the plan of more would only cost memory.
const MOST_CUTS: u64 = 1 << 12;

/// One dispatch.
#[derive(Clone)]
pub(crate) struct Step {
    pub instance: Instance,
    pub params: Params,
    pub bindings: Vec<Binding>,
    /// Workgroups; folded into three axes when dispatched.
    pub groups: u64,
    /// Estimated floating-point operations, to bound the work of a dispatch and of a submission.
    pub work: u64,
}

impl Step {
    /// The dispatches that it takes to keep each below so many operations, as far as whole workgroups can.
    fn cut(self, most_work: u64) -> impl Iterator<Item = Self> {
        let parts = self.work.div_ceil(most_work.max(1)).clamp(1, self.groups.clamp(1, MOST_CUTS));
        let each = self.groups.div_ceil(parts).max(1);
        (0..self.groups.div_ceil(each)).map(move |part| {
            let first = part * each;
            let groups = each.min(self.groups - first);
            let work = (u128::from(self.work) * u128::from(groups) / u128::from(self.groups)) as u64;
            Self { params: self.params.starting(first as u32), bindings: self.bindings.clone(), groups, work, ..self }
        })
    }
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

    /// The plan with every dispatch cut that has more work than one may have.
    pub(crate) fn cut(mut self, profile: &Profile) -> Self {
        if self.steps.iter().any(|step| step.work > profile.max_work) {
            self.steps = self.steps.into_iter().flat_map(|step| step.cut(profile.max_work)).collect();
        }
        self
    }

    /// Whether an argument is bound as a uniform array, which only a buffer of ours can be.
    pub(crate) fn has_uniform_arrays(&self) -> bool {
        self.steps.iter().flat_map(|step| &step.bindings).any(|binding| binding.access == Access::Uniform)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_dispatch_has_every_workgroup_once() {
        let step = |groups, work| {
            let (instance, params) = (Instance::new("x.wgsl"), Params::new(&7u32));
            Step { instance, params, bindings: vec![], groups, work }
        };
        for (groups, work, most_work) in
            [(1, 100, 10), (7, 100, 10), (100, 1000, 10), (3, 5, 1), (10, 0, 1), (10, 9, 10), (0, 9, 1)]
        {
            let parts: Vec<Step> = step(groups, work).cut(most_work).collect();
            let mut next = 0;
            for part in &parts {
                assert_eq!(part.params.0[..8], [u32::to_ne_bytes(next as u32), u32::to_ne_bytes(7)].concat());
                assert!(part.groups > 0 && (part.work <= most_work || part.groups == 1), "{groups} {work} {most_work}");
                next += part.groups;
            }
            assert_eq!(next, groups);
            assert!(parts.len() as u64 <= work.div_ceil(most_work).max(1) + 1);
        }
        assert_eq!(step(3, 9).cut(0).count(), 3, "a profile that anybody can write");
        let endless = step(1 << 40, u64::MAX).cut(1);
        assert_eq!(endless.take(MOST_CUTS as usize + 1).count() as u64, MOST_CUTS, "no more parts than that");
    }
}
