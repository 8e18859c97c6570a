//! Which kernel a convolution takes: a pure function of the problem and the adapter's profile.

use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::plan::Plan;
use crate::profile::Profile;

use super::problem::Problem;
use super::subgroup::{Copy, Gemm, WeightLayout};
use super::tiled::{self, Tiling};
use super::winograd::Winograd;
use super::{ConvKernel, depthwise, direct, few, grouped, winograd};

/// The kernels that can take the problem, best first by rule.
pub(crate) fn candidates(p: &Problem, profile: &Profile) -> Vec<ConvKernel> {
    let mut list = Vec::new();
    let gemm = Gemm::of(p);
    if gemm.fits(profile) {
        // Another border than zeros is written out by the copy into blocks, which a planar input has not.
        if gemm.planar() && !p.has_border() {
            list.push(ConvKernel::Pointwise);
        }
        list.push(ConvKernel::Subgroup);
    }
    for (m, kernel) in winograd::SIZES {
        let winograd = Winograd::new(p, m);
        if (m == 2 || p.fast_math) && winograd.fits(profile) {
            list.insert(if winograd.pays() { 0 } else { list.len() }, kernel);
        }
    }
    // A tile of output channels that is mostly empty, as for a depthwise problem, costs more than the direct kernel.
    let direct_at = if p.og() < 4 { 0 } else { list.len() };
    list.insert(direct_at, ConvKernel::Direct);
    if few::fits(p, profile) {
        list.insert(if few::pays(p) { 0 } else { list.len() }, ConvKernel::FewChannels);
    }
    if Tiling::of(p, profile).is_some() {
        let tiled_at = if tiled::leads(p, profile) { 0 } else { list.len() };
        list.insert(tiled_at, ConvKernel::Tiled);
    }
    if depthwise::fits(p, profile) {
        list.insert(0, ConvKernel::Depthwise);
    }
    if grouped::fits(p, profile) {
        list.insert(0, ConvKernel::Grouped);
    }
    list
}

/// The plan of a problem with the kernel asked for, or the best.
pub(crate) fn plan(p: &Problem, epilogue: &Epilogue, kernel: ConvKernel, profile: &Profile) -> Result<Plan> {
    let offered = candidates(p, profile);
    let kernel = match kernel {
        ConvKernel::Auto => offered[0],
        named if offered.contains(&named) => named,
        named => {
            let expected = format!("one that can take the problem on this adapter: {offered:?}");
            return Err(Error::invalid(p.op, "kernel", expected, format!("{named:?}")));
        }
    };
    let taps = p.taps() as u32;
    let layout = WeightLayout { group: p.og() * p.cg() * taps, output: p.cg() * taps, input: taps, flip: p.flip };
    let (pack, steps, scratch) = match (kernel, Tiling::of(p, profile)) {
        (ConvKernel::Tiled, Some(tiling)) => {
            let (steps, scratch) = tiled::steps(p, &tiling, epilogue, profile);
            (Some(tiled::pack(p, &tiling, 1, &layout)), steps, scratch)
        }
        (ConvKernel::Depthwise, _) => (None, depthwise::steps(p, epilogue, profile), Vec::new()),
        (ConvKernel::FewChannels, _) => (Some(few::pack(p)), few::steps(p, epilogue, profile), Vec::new()),
        (ConvKernel::Winograd | ConvKernel::WinogradF4, _) => {
            let winograd = Winograd::new(p, if kernel == ConvKernel::Winograd { 2 } else { 4 });
            let (steps, scratch) = winograd.steps(profile, epilogue);
            (Some(winograd.pack()), steps, scratch)
        }
        (ConvKernel::Grouped, _) => (None, grouped::steps(p, epilogue, profile), Vec::new()),
        (ConvKernel::Subgroup | ConvKernel::Pointwise, _) => {
            let gemm = Gemm::of(p);
            let copy = (kernel == ConvKernel::Subgroup).then(|| Copy::of(p));
            let (steps, scratch) = gemm.steps(profile, epilogue, (0, 2, 3), copy.as_ref());
            (Some(gemm.pack(1, &layout)), steps, scratch)
        }
        (ConvKernel::Auto | ConvKernel::Direct | ConvKernel::Tiled, _) => {
            (None, direct::steps(p, epilogue, profile)?, Vec::new())
        }
    };
    Ok(Plan { op: p.op, kernel: kernel.name(), output: p.output_shape.clone(), pack, scratch, steps }.cut(profile))
}
