//! Which kernel a transposed convolution takes: a pure function of the problem and the adapter's profile.

use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::ops::conv::subgroup::{Copy, Gemm, WeightLayout};
use crate::ops::options::Border;
use crate::plan::Plan;
use crate::profile::Profile;

use super::problem::Problem;
use super::{ConvTransposeKernel, direct};

/// The problem as an implicit GEMM: the output has `stride` interleaved parts along each axis, and each is a dense convolution.
///
/// Position j of part r is q = j*stride + r. Tap k reaches it from input i = (q + pad - k*dilation) / stride where that divides: one tap
/// out of `stride / gcd`, and from each to the next i falls by `dilation / gcd`.
fn gemm(p: &Problem) -> Gemm {
    let i32s = |axes: [u32; 3]| axes.map(|value| value as i32);
    let steps = p.tap_steps();
    Gemm {
        batch: p.batch,
        c_in: p.c_in,
        c_out: p.c_out,
        groups: p.groups,
        input: p.input,
        output: p.output,
        kernel: p.kernel,
        phases: i32s(p.stride),
        step: [1; 3],
        tap: steps.map(|(_, inputs)| -(inputs as i32)),
        k_step: steps.map(|(taps, _)| taps as i32),
        pad: i32s(p.pad_start),
        dilation: i32s(p.dilation),
    }
}

/// Whether the GEMM kernel can take the problem, and without most of its parts being empty.
///
/// Its workgroups can be counted in 32 bits: an axis rounded up to whole strides is less than twice as long, so the parts have less than
/// eight times the output's elements, of which there are 2^31 at most. A workgroup makes sixteen or more, which is 2^30 workgroups, and one
/// more for each part and tile, 2^31 at most.
fn fits(p: &Problem, gemm: &Gemm, profile: &Profile) -> bool {
    p.output.into_iter().zip(p.stride).all(|(out, stride)| stride <= out) && gemm.fits(profile)
}

/// The kernels that can take the problem, best first by rule.
pub(crate) fn candidates(p: &Problem, profile: &Profile) -> Vec<ConvTransposeKernel> {
    let mut list = vec![ConvTransposeKernel::Direct];
    if fits(p, &gemm(p), profile) {
        // A tile of output channels, or a block of input channels, that is half empty costs more than the direct kernel.
        let behind = p.og() <= 4 || p.cg() <= 2;
        list.insert(behind.into(), ConvTransposeKernel::Subgroup);
    }
    list
}

/// The plan of a problem with the kernel asked for, or the best.
pub(crate) fn plan(p: &Problem, epilogue: &Epilogue, kernel: ConvTransposeKernel, profile: &Profile) -> Result<Plan> {
    let offered = candidates(p, profile);
    let kernel = match kernel {
        ConvTransposeKernel::Auto => offered[0],
        named if offered.contains(&named) => named,
        named => {
            let expected = format!("one that can take the problem on this adapter: {offered:?}");
            return Err(Error::invalid(p.op, "kernel", expected, format!("{named:?}")));
        }
    };
    let (pack, steps, scratch) = match kernel {
        ConvTransposeKernel::Auto | ConvTransposeKernel::Direct => {
            (None, direct::steps(p, epilogue, profile)?, Vec::new())
        }
        ConvTransposeKernel::Subgroup => {
            let gemm = gemm(p);
            let taps = p.taps() as u32;
            let input = p.og() * taps;
            let layout = WeightLayout { group: p.cg() * input, output: taps, input, flip: false };
            let copy = Copy { source: p.input, pad: [0; 3], border: Border::Zeros };
            let (steps, scratch) = gemm.steps(profile, epilogue, (0, 2, 3), Some(&copy));
            (Some(gemm.pack(1, &layout)), steps, scratch)
        }
    };
    Ok(Plan { op: p.op, kernel: kernel.name(), output: p.output_shape.clone(), pack, scratch, steps }.cut(profile))
}
