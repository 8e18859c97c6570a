//! Which kernel an involution takes: a pure function of the problem and the adapter's profile.

use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::plan::{Instance, Plan};
use crate::profile::Profile;

use super::InvolutionKernel;
use super::parts::{self, Threads};
use super::problem::{OP, Problem};

/// Kernel widths and strides along rows that `involution/rows.wgsl` is instantiated for.
pub(crate) const WIDTHS: [u32; 3] = [3, 5, 7];
pub(crate) const STRIDES: [u32; 2] = [1, 2];
/// Output rows of a thread.
pub(crate) const ROWS: [u32; 2] = [1, 2];
/// Channels of a thread. More would load each weight less often, but take longer to compile and, on a software adapter, outgrow a cache.
pub(crate) const BLOCKS: [u32; 3] = [4, 2, 1];

/// Channels of a thread: the most that leave few idle.
fn block(cg: u32) -> u32 {
    let padded = |block: u32| u64::from(cg).next_multiple_of(block.into());
    BLOCKS.into_iter().find(|&block| padded(block) * 8 <= u64::from(cg) * 9).unwrap_or(1)
}

pub(crate) fn direct_instance(block: u32) -> Instance {
    Instance::new("involution/direct.wgsl").with("CB", block)
}

/// The instance for a kernel width and stride along rows, channels and rows of a thread, and an activation; for aligned rows, a residual
/// and parts of the taps.
pub(crate) fn rows_instance(
    (width, stride): (u32, u32),
    (block, rows): (u32, u32),
    activation: u32,
    (vec, residual, part): (bool, bool, bool),
) -> Instance {
    Instance::new("involution/rows.wgsl")
        .with("KW", width)
        .with("SW", stride)
        .with("CB", block)
        .with("RH", rows)
        .with("ACT", activation)
        .with("VEC", vec.into())
        .with("RESIDUAL", residual.into())
        .with("PART", part.into())
}

/// Whether rows of input and output, and the windows over them, lie in aligned vec4s.
fn aligned(p: &Problem) -> bool {
    p.input[1].is_multiple_of(4) && p.output[1].is_multiple_of(4) && p.pad_start[1] == (p.kernel[1] - 1) / 2
}

/// The kernels that can take the problem, best first by rule.
pub(crate) fn candidates(p: &Problem, profile: &Profile) -> Vec<InvolutionKernel> {
    let rows = WIDTHS.contains(&p.kernel[1])
        && STRIDES.contains(&p.stride[1])
        && p.dilation[1] == 1
        && parts::whole_planes(p, profile);
    match rows {
        // One position of four in use costs more than the direct kernel.
        true if p.output[1] == 1 => vec![InvolutionKernel::Direct, InvolutionKernel::Rows],
        true => vec![InvolutionKernel::Rows, InvolutionKernel::Direct],
        false => vec![InvolutionKernel::Direct],
    }
}

/// The plan of a problem with the kernel asked for, or the best.
pub(crate) fn plan(p: &Problem, epilogue: &Epilogue, kernel: InvolutionKernel, profile: &Profile) -> Result<Plan> {
    let offered = candidates(p, profile);
    let kernel = match kernel {
        InvolutionKernel::Auto => offered[0],
        named if offered.contains(&named) => named,
        named => {
            let expected = format!("one that can take the problem on this adapter: {offered:?}");
            return Err(Error::invalid(OP, "kernel", expected, format!("{named:?}")));
        }
    };
    let channels = block(p.cg());
    let threads = match kernel {
        InvolutionKernel::Auto | InvolutionKernel::Direct => {
            Threads { instance: direct_instance(channels), channels, rows: 1, positions: 1 }
        }
        InvolutionKernel::Rows => {
            // An input row is loaded once for all output rows of a thread that read it.
            let rows = if p.stride[0] == 1 && p.dilation[0] == 1 && p.output[0] > 1 { ROWS[1] } else { ROWS[0] };
            let flags = (aligned(p), epilogue.has_residual, !parts::whole_taps(p, profile));
            let activation = epilogue.activation.constant();
            let instance = rows_instance((p.kernel[1], p.stride[1]), (channels, rows), activation, flags);
            Threads { instance, channels, rows, positions: 4 }
        }
    };
    let steps = parts::steps(p, epilogue, profile, &threads)?;
    Ok(Plan { op: OP, kernel: kernel.name(), output: p.output_shape(), pack: None, scratch: Vec::new(), steps })
}
