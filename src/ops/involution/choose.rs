//! Which kernel an involution takes: a pure function of the problem and the adapter's profile.

use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::ops::conv::subgroup::{has_subgroups, lanes};
use crate::plan::{Instance, Plan};
use crate::profile::{AdapterClass, Profile};

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
/// Channels of a lane of `involution/subgroup.wgsl`, which goes over them in a loop.
pub(crate) const SUBGROUP_BLOCKS: [u32; 3] = [16, 8, 4];

/// Channels of a thread: the most that leave few idle.
fn block(blocks: &[u32], cg: u32) -> u32 {
    let padded = |block: u32| u64::from(cg).next_multiple_of(block.into());
    let few_idle = |block: &&u32| padded(**block) * 8 <= u64::from(cg) * 9;
    blocks.iter().find(few_idle).or(blocks.last()).map_or(1, |&block| block)
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

/// The instance for lanes that load wide or not, a kernel width, channels and rows of a lane, an activation, and loads of so many numbers;
/// for a residual.
pub(crate) fn subgroup_instance(
    ((lanes, wide), width): ((u32, bool), u32),
    (block, rows): (u32, u32),
    activation: u32,
    (by, residual): (u32, bool),
) -> Instance {
    Instance::new("involution/subgroup.wgsl")
        .with("LANES", lanes)
        .with("KW", width)
        .with("CB", block)
        .with("RH", rows)
        .with("ACT", activation)
        .with("BY", by)
        .with("RESIDUAL", residual.into())
        .with("WIDE", wide.into())
}

/// How many numbers at once rows of input and output are loaded by.
pub(crate) const BY: [u32; 3] = [4, 2, 1];

/// Whether rows of input and output, and the windows of odd width over them, lie in aligned vec4s.
fn aligned(p: &Problem) -> bool {
    p.input[1].is_multiple_of(4) && p.output[1].is_multiple_of(4) && p.pad_start[1] == p.kernel[1] / 2
}

/// Whether the lane of four positions can hold the same four columns of the input for its neighbours, under windows of odd width, and all
/// columns are held.
fn own_columns(p: &Problem) -> bool {
    let held = p.output[1].next_multiple_of(4) >= p.input[1];
    p.stride[1] == 1 && p.pad_start[1] == p.kernel[1] / 2 && held
}

/// The kernels that can take the problem, best first by rule.
pub(crate) fn candidates(p: &Problem, profile: &Profile) -> Vec<InvolutionKernel> {
    let rows = WIDTHS.contains(&p.kernel[1])
        && STRIDES.contains(&p.stride[1])
        && p.dilation[1] == 1
        && parts::whole_planes(p, profile);
    let mut list = vec![InvolutionKernel::Direct];
    if rows {
        // One position of four in use costs more than the direct kernel.
        list.insert(usize::from(p.output[1] == 1), InvolutionKernel::Rows);
        let lanes = has_subgroups(profile);
        if lanes && p.cg() > 2 && own_columns(p) && parts::whole_taps(p, profile) {
            // A GPU rather has more threads and loads again what its caches hold.
            let leads = profile.class == AdapterClass::Cpu && p.output[1] > 1;
            list.insert(if leads { 0 } else { list.len() }, InvolutionKernel::Subgroup);
        }
    }
    list
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
    // An input row is loaded once for all output rows of a thread that read it.
    let rows = if p.stride[0] == 1 && p.dilation[0] == 1 && p.output[0] > 1 { ROWS[1] } else { ROWS[0] };
    let activation = epilogue.activation.constant();
    let threads = match kernel {
        InvolutionKernel::Auto | InvolutionKernel::Direct => {
            let channels = block(&BLOCKS, p.cg());
            Threads { instance: direct_instance(channels), channels, rows: 1, positions: 1, workgroup: 64 }
        }
        InvolutionKernel::Rows => {
            let channels = block(&BLOCKS, p.cg());
            let flags = (aligned(p), epilogue.has_residual, !parts::whole_taps(p, profile));
            let instance = rows_instance((p.kernel[1], p.stride[1]), (channels, rows), activation, flags);
            Threads { instance, channels, rows, positions: 4, workgroup: 64 }
        }
        InvolutionKernel::Subgroup => {
            let ((lanes, wide), channels) = (lanes(profile), block(&SUBGROUP_BLOCKS, p.cg()));
            let whole = |by: &u32| p.input[1].is_multiple_of(*by) && p.output[1].is_multiple_of(*by);
            let by = BY.into_iter().find(whole).unwrap_or(1);
            let (lanes_wide, flags) = ((lanes, wide && by > 1), (by, epilogue.has_residual));
            let instance = subgroup_instance((lanes_wide, p.kernel[1]), (channels, rows), activation, flags);
            Threads { instance, channels, rows, positions: 4, workgroup: lanes }
        }
    };
    let steps = parts::steps(p, epilogue, profile, &threads)?;
    Ok(Plan { op: OP, kernel: kernel.name(), output: p.output_shape(), pack: None, scratch: Vec::new(), steps }
        .cut(profile))
}
