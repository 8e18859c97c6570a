//! For fuzz targets and tests alone: what a plan binds and dispatches, and readers of files that no user calls by name.

use crate::error::Result;
use crate::ops::conv::ConvKernel;
use crate::ops::conv::tune::Asked;
use crate::pipeline_cache;
use crate::plan::Plan;
pub use crate::plan::{Access, Binding, Slot};
use crate::profile::Profile;
use crate::tuning::Tuner;

/// Of each step, packing first: the workgroups along each axis of the dispatch, those that there must be in all, and what is bound.
pub fn steps<'p>(plan: &'p Plan, profile: &Profile) -> impl Iterator<Item = ([u32; 3], u64, &'p [Binding])> {
    plan.all_steps().map(|step| (profile.fold(step.groups), step.groups, &step.bindings[..]))
}

/// Bytes of each scratch buffer.
#[must_use]
pub fn scratch(plan: &Plan) -> &[u64] {
    &plan.scratch
}

/// Reads a table of measurements and chooses among kernels of a convolution by it. Gives the choice and the name of the table's file.
///
/// # Errors
/// As of [`Tuning::File`](crate::Tuning::File).
pub fn tuning_table(text: &[u8], key: &str, measures: bool) -> Result<(Option<ConvKernel>, String)> {
    let (tuner, file) = Tuner::of_text(text, measures)?;
    Ok((tuner.find::<Asked<'_>>(key, &[ConvKernel::Tiled, ConvKernel::Subgroup, ConvKernel::Direct]), file))
}

/// The data within a file of compiled pipelines that is whole.
#[must_use]
pub fn pipeline_cache(contents: &[u8]) -> Option<&[u8]> {
    pipeline_cache::unwrap(contents)
}
