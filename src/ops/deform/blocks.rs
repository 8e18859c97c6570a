//! What the deformable kernels that sample whole blocks share: the copy of the input in blocks of four channels, and the windows of
//! offset and mask.

use std::ops::Range;

use crate::ops::conv::subgroup::{Copy, Gemm};
use crate::ops::options::Border;
use crate::ops::window::image_window;
use crate::plan::{Binding, Slot, Step};
use crate::profile::Profile;

use super::problem::{Problem, area};
use super::{INPUT, MASK, OFFSET};

/// Whether blocks of four channels are worth it: every block in one offset group, and few idle channels.
pub(crate) fn pay(p: &Problem) -> bool {
    let (cg, cd) = (p.cg(), p.cd());
    let aligned = cd.is_multiple_of(cg) || (cd.is_multiple_of(4) && cg.is_multiple_of(4));
    aligned && u64::from(cg.next_multiple_of(4)) * 2 <= u64::from(cg) * 3
}

/// Elements of the copy of one image.
pub(crate) fn image(p: &Problem) -> u64 {
    u64::from(p.groups) * u64::from(p.cg().next_multiple_of(4)) * area(p.input)
}

/// Copies some images into blocks in a scratch buffer: [`image`] elements of each, and a vec4 of zeros.
pub(crate) fn copy_step(p: &Problem, profile: &Profile, images: &Range<u64>, scratch: usize) -> Step {
    let (extents, count) = ([1, p.input[0], p.input[1]], images.end - images.start);
    let plain = Gemm {
        batch: count as u32,
        c_in: p.c_in,
        c_out: p.c_out,
        groups: p.groups,
        input: extents,
        output: extents,
        kernel: [1; 3],
        phases: [1; 3],
        step: [1; 3],
        tap: [1; 3],
        k_step: [1; 3],
        pad: [0; 3],
        dilation: [1; 3],
    };
    let copy = Copy { source: extents, pad: [0; 3], border: Border::Zeros };
    let (x, base) = image_window(profile, Slot::Arg(INPUT), (p.batch, p.image()), images, false);
    let step = plain.copy_step(profile, &copy, x, (i64::from((base as i32).wrapping_neg()), count));
    Step { bindings: vec![x, Binding::write(Slot::Scratch(scratch))], ..step }
}

/// The windows of offset and mask over some images, with their bases.
pub(crate) fn fields(
    p: &Problem,
    profile: &Profile,
    has_mask: bool,
    images: &Range<u64>,
) -> ((Binding, u32), (Binding, u32)) {
    let elements = p.mask_image();
    let mask = match has_mask {
        true => image_window(profile, Slot::Arg(MASK), (p.batch, elements), images, false),
        false => (Binding::read(Slot::Nothing), 0),
    };
    (image_window(profile, Slot::Arg(OFFSET), (p.batch, 2 * elements), images, false), mask)
}
