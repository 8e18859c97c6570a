//! What tuning knows of a transposed convolution.

use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::conv::problem::Axes;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::tuning::{Tunable, extents};

use super::problem::Problem;
use super::{ConvTransposeKernel, choose};

/// A call whose kernel is to be chosen.
pub(crate) struct Asked<'a> {
    pub problem: &'a Problem,
    pub epilogue: Epilogue,
    /// Shapes of the arguments.
    pub input: &'a [usize],
    pub weight: &'a [usize],
}

impl Tunable for Asked<'_> {
    type Kernel = ConvTransposeKernel;
    const AUTO: ConvTransposeKernel = ConvTransposeKernel::Auto;
    const REFERENCE: ConvTransposeKernel = ConvTransposeKernel::Direct;

    fn name(kernel: ConvTransposeKernel) -> &'static str {
        kernel.name()
    }

    fn candidates(&self, profile: &Profile) -> Result<Vec<ConvTransposeKernel>> {
        Ok(choose::candidates(self.problem, profile))
    }

    fn plan(&self, kernel: ConvTransposeKernel, profile: &Profile) -> Result<Plan> {
        choose::plan(self.problem, &self.epilogue, kernel, profile)
    }

    fn key(&self) -> String {
        let p = self.problem;
        let axes = |axes: &Axes| extents(&axes[p.first_axis..]);
        let shapes = format!(
            "input={} weight={} output={}",
            extents(self.input),
            extents(self.weight),
            extents(&p.output_shape)
        );
        let steps = format!("stride={} dilation={} padding={}", axes(&p.stride), axes(&p.dilation), axes(&p.pad_start));
        format!("{} {shapes} {steps} groups={} {}", p.op, p.groups, self.epilogue)
    }

    fn arguments(&self) -> Vec<(&'static str, Option<Vec<usize>>)> {
        let Problem { c_out, output_shape, .. } = self.problem;
        vec![
            ("input", Some(self.input.to_vec())),
            ("weight", Some(self.weight.to_vec())),
            ("bias", self.epilogue.has_bias.then(|| vec![*c_out as usize])),
            ("residual", self.epilogue.has_residual.then(|| output_shape.clone())),
        ]
    }

    fn products(&self) -> u64 {
        u64::from(self.problem.cg()) * self.problem.taps()
    }
}
