//! Which kernel a deformable convolution takes: a pure function of the problem and the adapter's profile.

use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::plan::Plan;
use crate::profile::Profile;

use super::problem::{OP, Problem};
use super::sliced::Sliced;
use super::{DeformKernel, direct};

/// The kernels that can take the problem, best first by rule.
pub(crate) fn candidates(p: &Problem, profile: &Profile) -> Vec<DeformKernel> {
    if Sliced::new(p, profile, true).is_none() {
        return vec![DeformKernel::Direct];
    }
    // A tile of output channels that is mostly empty costs more than the direct kernel.
    match p.og() < 4 {
        true => vec![DeformKernel::Direct, DeformKernel::Sliced],
        false => vec![DeformKernel::Sliced, DeformKernel::Direct],
    }
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
    let sliced = Sliced::new(p, profile, has_mask).filter(|_| kernel == DeformKernel::Sliced);
    let (pack, steps, scratch) = match sliced {
        Some(sliced) => {
            let (steps, scratch) = sliced.steps(epilogue);
            (Some(sliced.pack()), steps, scratch)
        }
        None => (None, direct::steps(p, epilogue, has_mask, profile)?, Vec::new()),
    };
    Ok(Plan { op: OP, kernel: kernel.name(), output: p.output_shape.clone(), pack, scratch, steps })
}
