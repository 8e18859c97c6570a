//! What tuning knows of a deformable convolution.

use crate::error::Result;
use crate::ops::Epilogue;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::tuning::{Tunable, extents};

use super::problem::{OP, Problem};
use super::{DeformKernel, choose};

/// A call whose kernel is to be chosen.
pub(crate) struct Asked<'a> {
    pub problem: &'a Problem,
    pub epilogue: Epilogue,
    /// Shapes of the arguments.
    pub input: &'a [usize],
    pub weight: &'a [usize],
    pub has_mask: bool,
}

impl Tunable for Asked<'_> {
    type Kernel = DeformKernel;
    const AUTO: DeformKernel = DeformKernel::Auto;
    const REFERENCE: DeformKernel = DeformKernel::Direct;

    fn name(kernel: DeformKernel) -> &'static str {
        kernel.name()
    }

    fn candidates(&self, profile: &Profile) -> Result<Vec<DeformKernel>> {
        Ok(choose::candidates(self.problem, profile))
    }

    fn plan(&self, kernel: DeformKernel, profile: &Profile) -> Result<Plan> {
        choose::plan(self.problem, &self.epilogue, self.has_mask, kernel, profile)
    }

    fn key(&self) -> String {
        let p = self.problem;
        let shapes = format!(
            "input={} weight={} output={}",
            extents(self.input),
            extents(self.weight),
            extents(&p.output_shape)
        );
        let steps = format!(
            "stride={} dilation={} padding={}",
            extents(&p.stride),
            extents(&p.dilation),
            extents(&p.pad_start)
        );
        let rest = format!("groups={} offset_groups={}", p.groups, p.offset_groups);
        format!("{OP} {shapes} {steps} {rest} {}", self.epilogue)
    }

    fn arguments(&self) -> Vec<(&'static str, Option<Vec<usize>>)> {
        let Problem { c_out, output_shape, offset_shape, mask_shape, .. } = self.problem;
        vec![
            ("input", Some(self.input.to_vec())),
            ("offset", Some(offset_shape.clone())),
            ("weight", Some(self.weight.to_vec())),
            ("bias", self.epilogue.has_bias.then(|| vec![*c_out as usize])),
            ("mask", self.has_mask.then(|| mask_shape.clone())),
            ("residual", self.epilogue.has_residual.then(|| output_shape.clone())),
        ]
    }

    fn products(&self) -> u64 {
        u64::from(self.problem.cg()) * self.problem.taps()
    }
}
