//! What must hold of a shape and of a plan, worked out apart from the library: all in i128, which no product of two sizes overflows.

use wgconv::fuzzing::{Access, Slot, scratch, steps};
use wgconv::reference::ReferenceError;
use wgconv::{AdapterClass, Error, Plan, Profile, Result};

use super::bytes::Bytes;

/// Elements of a tensor, and positions along an axis, that anything can hold: what is right up to here must be taken.
const SMALL: i128 = 1 << 20;
/// Windows into the largest tensor from which on a problem is not planned: nobody has such a tensor on an adapter with such bindings.
const MOST_WINDOWS: i128 = 2048;

/// An adapter that there could be: WebGPU's least limits or more of each, or the bindings of a few KiB that tests ask for.
pub fn profile(bytes: &mut Bytes<'_>) -> Profile {
    let mib = 1 << 20;
    let max_binding =
        bytes.pick(&[128 * mib, 128 * mib, 1 << 30, (1 << 32) - 16, (1 << 31) - 16, 1 << 34, 4096, 65_536]);
    let class = bytes.pick(&[AdapterClass::Cpu, AdapterClass::Integrated, AdapterClass::Discrete]);
    Profile {
        class,
        wide_loads: class == AdapterClass::Cpu,
        max_uniform: 64 << 10,
        subgroup: bytes.pick(&[None, Some(4), Some(8), Some(16), Some(32), Some(64), Some(128)]),
        max_invocations: bytes.pick(&[256, 128, 512, 1024]),
        workgroup_bytes: bytes.pick(&[16 << 10, 32 << 10, 48 << 10]),
        max_binding,
        max_buffer: bytes.pick(&[1 << 40, max_binding.max(256 * mib), max_binding]),
        offset_alignment: bytes.pick(&[256, 32, 64, 16]),
        max_groups: 65_535,
        max_work: 1 << 33,
    }
}

/// Elements of a shape.
pub fn volume(shape: &[i128]) -> i128 {
    shape.iter().fold(1, |product: i128, &extent| product.saturating_mul(extent))
}

/// Sizes as they are computed with here.
pub fn wide(sizes: &[usize]) -> Vec<i128> {
    sizes.iter().map(|&size| size as i128).collect()
}

/// The bias of so many channels. One that no binding holds is refused where it is given, which a plan is not told: it has none then.
pub fn bias(channels: i128, profile: &Profile) -> Vec<i128> {
    vec![if channels.saturating_mul(4) <= i128::from(profile.max_binding) { channels } else { 1 }]
}

/// What an operator should say to shapes and options.
pub struct Expected {
    /// The output's shape; none where PyTorch would refuse.
    pub output: Option<Vec<i128>>,
    /// The call's arguments, the optional ones too.
    pub arguments: Vec<Vec<i128>>,
    /// The largest extent that comes up on the way, padding counted.
    pub longest: i128,
}

impl Expected {
    /// Everything, the output included, is so small that an error would be wrong.
    fn is_small(&self) -> bool {
        let shapes = || self.arguments.iter().chain(&self.output);
        self.longest <= SMALL && shapes().all(|shape| volume(shape) <= SMALL)
    }

    /// Whether to plan it on an adapter with such bindings.
    fn is_planned(&self, profile: &Profile) -> bool {
        let most = self.arguments.iter().chain(&self.output).map(|shape| volume(shape)).max().unwrap_or(0);
        most.saturating_mul(4) <= MOST_WINDOWS * i128::from(profile.max_binding)
    }

    /// Compares the shape, and says whether there is a problem to plan.
    pub fn shape(&self, op: &str, got: &Result<Vec<usize>>, profile: &Profile) -> bool {
        match (got, &self.output) {
            (Ok(got), Some(output)) => {
                assert_eq!(&wide(got), output, "{op}: another shape");
                self.is_planned(profile)
            }
            (Ok(got), None) => panic!("{op}: {got:?} for what nobody can compute"),
            (Err(error), output) => {
                typed(op, error);
                let due = output.is_none() || !self.is_small();
                assert!(due, "{op}: refused: {error}");
                false
            }
        }
    }

    /// Compares the shape that the CPU reference gives.
    pub fn reference(&self, got: Result<Vec<usize>, ReferenceError>) {
        match (got, &self.output) {
            (Ok(got), Some(output)) => assert_eq!(&wide(&got), output, "the reference's shape"),
            (Ok(got), None) => panic!("the reference: {got:?} for what nobody can compute"),
            (Err(error), output) => assert!(output.is_none() || !self.is_small(), "the reference refused: {error}"),
        }
    }

    /// Checks the plans of a problem whose shape was given, one for each kernel that is offered and one for none by name.
    pub fn plans<K: Copy + PartialEq + std::fmt::Debug>(
        &self,
        op: &str,
        profile: &Profile,
        (candidates, all): (Result<Vec<K>>, &[K]),
        plan: impl Fn(Option<K>) -> Result<Plan>,
    ) {
        let candidates = candidates.unwrap_or_else(|error| panic!("{op}: no candidates: {error}"));
        self.plan(op, profile, plan(None));
        for &kernel in all {
            match plan(Some(kernel)) {
                planned if candidates.contains(&kernel) => self.plan(op, profile, planned),
                Err(Error::Invalid { argument: "kernel", .. }) => {}
                other => panic!("{op}: {kernel:?}, which is not offered: {other:?}"),
            }
        }
    }

    /// Checks a plan of a problem whose shape was given.
    pub fn plan(&self, op: &str, profile: &Profile, plan: Result<Plan>) {
        match plan {
            Ok(plan) => {
                let output = self.output.as_deref().unwrap_or_default();
                assert_eq!(wide(plan.output_shape()), output, "{op}: the plan's shape");
                dispatches(op, &plan, profile, &self.arguments);
            }
            Err(error) => {
                typed(op, &error);
                // Every adapter there is has bindings of 128 MiB; a row of a small tensor may exceed one of 4 KiB.
                assert!(!self.is_small() || profile.max_binding < 128 << 20, "{op}: no plan: {error}");
            }
        }
    }
}

/// An error that tells a user what to do.
pub fn typed(op: &str, error: &Error) {
    match error {
        Error::Invalid { op: named, argument, expected, got } => {
            let tells = !argument.is_empty() && !expected.is_empty() && !got.is_empty();
            assert!(*named == op && tells, "{op}: {error}");
        }
        Error::TooLarge { op: named, argument, bytes, limit, .. } => {
            assert!(*named == op && !argument.is_empty() && bytes > limit, "{op}: {error}");
        }
        other => panic!("{op}: {other:?}"),
    }
}

/// Bytes of a tensor as it is bound: whole vec4s.
fn bytes_of(shape: &[i128]) -> i128 {
    (volume(shape) * 4 + 15) / 16 * 16
}

/// Checks every binding against its buffer and the adapter's limits, the grids, and that the output is written from end to end.
fn dispatches(op: &str, plan: &Plan, profile: &Profile, arguments: &[Vec<i128>]) {
    let output = bytes_of(&wide(plan.output_shape()));
    let whole = |slot: Slot| match slot {
        Slot::Arg(i) => bytes_of(&arguments[i]),
        Slot::Out => output,
        Slot::Scratch(i) => (i128::from(scratch(plan)[i]) + 15) / 16 * 16,
        Slot::Packed => (i128::from(plan.packed_bytes()) + 15) / 16 * 16,
        Slot::Nothing => 16,
    };
    let mut written = Vec::new();
    for (grid, groups, bindings) in steps(plan, profile) {
        let covered: i128 = grid.into_iter().map(i128::from).product();
        let fits = grid.into_iter().all(|axis| (1..=profile.max_groups).contains(&axis));
        assert!(fits && groups > 0 && covered >= i128::from(groups), "{op}: {groups} workgroups as {grid:?}\n{plan}");
        for binding in bindings {
            let (offset, all) = (i128::from(binding.offset), whole(binding.slot));
            let size = if binding.size == 0 { all } else { i128::from(binding.size) };
            let aligned = binding.offset.is_multiple_of(profile.offset_alignment.into()) && size % 16 == 0;
            let inside = match binding.access {
                // A buffer of its size: the pool takes one for more than half of it.
                Access::Uniform => {
                    let sizes = [16 << 10, 32 << 10, 64 << 10];
                    offset == 0 && sizes.contains(&size) && (size / 2 < all && all <= size)
                }
                _ => size > 0 && offset + size <= all && size <= i128::from(profile.max_binding),
            };
            assert!(aligned && inside, "{op}: {binding:?} of {all} bytes, {profile:?}\n{plan}");
            let writable = matches!(binding.slot, Slot::Out | Slot::Scratch(_) | Slot::Packed);
            let writes = binding.access == Access::Write;
            assert!(!writes || writable, "{op}: writes to {binding:?}\n{plan}");
            if writes && binding.slot == Slot::Out {
                written.push((offset, offset + size));
            }
        }
    }
    written.sort_unstable();
    let end = written.into_iter().fold(0, |end, (from, to)| if from <= end { end.max(to) } else { end });
    assert_eq!(end, output, "{op}: the output is written up to there only\n{plan}");
    let sum: u64 = scratch(plan).iter().sum();
    assert_eq!(plan.scratch_bytes(), sum, "{op}");
}
