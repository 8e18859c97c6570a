//! Which kernel a deformable convolution takes: a pure function of the problem and the adapter's profile.

use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::plan::Plan;
use crate::profile::Profile;

use super::fused::{self, Fused};
use super::problem::{OP, Problem};
use super::sliced::Sliced;
use super::{DeformKernel, direct};

/// The kernels that can take the problem, best first by rule.
pub(crate) fn candidates(p: &Problem, profile: &Profile) -> Vec<DeformKernel> {
    let mut list = vec![DeformKernel::Direct];
    if Sliced::new(p, profile, true).is_some() {
        // A tile of output channels that is mostly empty costs more than the direct kernel.
        list.insert(usize::from(p.og() < 4), DeformKernel::Sliced);
    }
    if Fused::new(p, profile).is_some() {
        list.insert(if fused::leads(p, profile) { 0 } else { list.len() }, DeformKernel::Fused);
    }
    list
}

/// The plan of a problem with the kernel asked for, or the best.
pub(crate) fn plan(
    p: &Problem,
    epilogue: &Epilogue,
    has_mask: bool,
    kernel: DeformKernel,
    profile: &Profile,
) -> Result<Plan> {
    let offered = candidates(p, profile);
    let kernel = match kernel {
        DeformKernel::Auto => offered[0],
        named if offered.contains(&named) => named,
        named => {
            let expected = format!("one that can take the problem on this adapter: {offered:?}");
            return Err(Error::invalid(OP, "kernel", expected, format!("{named:?}")));
        }
    };
    let unplanned = || Error::invalid(OP, "kernel", "one that can take the problem", format!("{kernel:?}"));
    let (pack, steps, scratch) = match kernel {
        DeformKernel::Fused => {
            let fused = Fused::new(p, profile).ok_or_else(unplanned)?;
            let (steps, scratch) = fused.steps(epilogue, has_mask);
            (Some(fused.pack()), steps, scratch)
        }
        DeformKernel::Sliced => {
            let sliced = Sliced::new(p, profile, has_mask).ok_or_else(unplanned)?;
            let (steps, scratch) = sliced.steps(epilogue);
            (Some(sliced.pack()), steps, scratch)
        }
        DeformKernel::Auto | DeformKernel::Direct => (None, direct::steps(p, epilogue, has_mask, profile)?, Vec::new()),
    };
    Ok(Plan { op: OP, kernel: kernel.name(), output: p.output_shape.clone(), pack, scratch, steps })
}
