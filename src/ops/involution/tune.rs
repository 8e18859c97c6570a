//! What tuning knows of an involution.

use crate::error::Result;
use crate::ops::Epilogue;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::tuning::{Tunable, extents};

use super::problem::{OP, Problem};
use super::{InvolutionKernel, choose};

/// A call whose kernel is to be chosen.
pub(crate) struct Asked<'a> {
    pub problem: &'a Problem,
    pub epilogue: Epilogue,
    /// Shapes of the arguments.
    pub input: &'a [usize],
    pub weight: &'a [usize],
}

impl Tunable for Asked<'_> {
    type Kernel = InvolutionKernel;
    const AUTO: InvolutionKernel = InvolutionKernel::Auto;
    const REFERENCE: InvolutionKernel = InvolutionKernel::Direct;

    fn name(kernel: InvolutionKernel) -> &'static str {
        kernel.name()
    }

    fn candidates(&self, profile: &Profile) -> Result<Vec<InvolutionKernel>> {
        Ok(choose::candidates(self.problem, profile))
    }

    fn plan(&self, kernel: InvolutionKernel, profile: &Profile) -> Result<Plan> {
        choose::plan(self.problem, &self.epilogue, kernel, profile)
    }

    fn key(&self) -> String {
        let p = self.problem;
        let shapes = format!(
            "input={} kernel={} output={}",
            extents(self.input),
            extents(&p.kernel),
            extents(&p.output_shape())
        );
        let steps = format!(
            "stride={} dilation={} padding={}",
            extents(&p.stride),
            extents(&p.dilation),
            extents(&p.pad_start)
        );
        format!("{OP} {shapes} {steps} groups={} {}", p.groups, self.epilogue)
    }

    fn arguments(&self) -> Vec<(&'static str, Option<Vec<usize>>)> {
        vec![
            ("input", Some(self.input.to_vec())),
            ("weight", Some(self.weight.to_vec())),
            ("bias", self.epilogue.has_bias.then(|| vec![self.problem.channels as usize])),
            ("residual", self.epilogue.has_residual.then(|| self.problem.output_shape())),
        ]
    }

    fn products(&self) -> u64 {
        self.problem.taps()
    }
}
