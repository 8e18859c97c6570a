//! Which kernel a deformable convolution takes: a pure function of the problem and the adapter's profile.

use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::plan::Plan;
use crate::profile::Profile;

use super::fused::{self, Fused};
use super::problem::{OP, Problem};
use super::sliced::Sliced;
use super::{DeformKernel, direct, few};

/// The kernels that can take the problem, best first by rule.
pub(crate) fn candidates(p: &Problem, profile: &Profile) -> Vec<DeformKernel> {
    offered(p, profile, true).0
}

/// The same, with what plans the two that do not take every problem.
fn offered<'a>(
    p: &'a Problem,
    profile: &'a Profile,
    has_mask: bool,
) -> (Vec<DeformKernel>, Option<Sliced<'a>>, Option<Fused<'a>>) {
    let (sliced, fused) = (Sliced::new(p, profile, has_mask), Fused::new(p, profile));
    let mut list = vec![DeformKernel::Direct];
    if sliced.is_some() {
        // A tile of output channels that is mostly empty costs more than the direct kernel.
        list.insert(usize::from(p.og() < 4), DeformKernel::Sliced);
    }
    if few::fits(p, profile) {
        list.insert(if few::leads(p) { 0 } else { list.len() }, DeformKernel::FewChannels);
    }
    if fused.is_some() {
        list.insert(if fused::leads(p, profile) { 0 } else { list.len() }, DeformKernel::Fused);
    }
    (list, sliced, fused)
}

/// The plan of a problem with the kernel asked for, or the best.
pub(crate) fn plan(
    p: &Problem,
    epilogue: &Epilogue,
    has_mask: bool,
    kernel: DeformKernel,
    profile: &Profile,
) -> Result<Plan> {
    let (offered, sliced, fused) = offered(p, profile, has_mask);
    let kernel = match kernel {
        DeformKernel::Auto => offered[0],
        named if offered.contains(&named) => named,
        named => {
            let expected = format!("one that can take the problem on this adapter: {offered:?}");
            return Err(Error::invalid(OP, "kernel", expected, format!("{named:?}")));
        }
    };
    let (pack, steps, scratch) = match (kernel, sliced, fused) {
        (DeformKernel::Fused, _, Some(fused)) => {
            let (steps, scratch) = fused.steps(epilogue, has_mask);
            (Some(fused.pack()), steps, scratch)
        }
        (DeformKernel::Sliced, Some(sliced), _) => {
            let (steps, scratch) = sliced.steps(epilogue);
            (Some(sliced.pack()), steps, scratch)
        }
        (DeformKernel::FewChannels, ..) => (Some(few::pack(p)), few::steps(p, epilogue, has_mask, profile), Vec::new()),
        _ => (None, direct::steps(p, epilogue, has_mask, profile)?, Vec::new()),
    };
    Ok(Plan { op: OP, kernel: kernel.name(), output: p.output_shape.clone(), pack, scratch, steps }.cut(profile))
}
