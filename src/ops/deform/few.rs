//! Plans for `deform/few.wgsl`: few input channels a group, without columns and without scratch memory.

use std::ops::Range;

use crate::ops::Epilogue;
use crate::ops::conv::few::{TILE, Weights};
use crate::ops::conv::subgroup::{has_subgroups, lanes};
use crate::ops::window::{image_window, ranges, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Pack, Params, Slot, Step};
use crate::pool::uniform_size;
use crate::profile::{AdapterClass, Profile};

use super::blocks;
use super::problem::{Problem, area, i32s};
use super::{BIAS, INPUT, RESIDUAL, WEIGHT};

params! {
    /// `Params` of `deform/few.wgsl`.
    pub struct FewParams {
        in_h: i32, in_w: i32, out_w: i32, positions: u32,
        k_w: i32, taps: u32, s_h: i32, s_w: i32,
        d_h: i32, d_w: i32, p_h: i32, p_w: i32,
        c_in: u32, cg: u32, cd: u32, offset_groups: u32,
        og: u32, groups: u32, tiles: u32, quads: u32,
        quad_tiles: u32, total: u32, activation: u32, slope: f32,
        has_bias: u32, x_base: u32, offset_base: u32, mask_base: u32,
        y_base: u32,
    }
}

/// Input channels of a group at most; from more on blocks of four, which one load brings, are the better use of a load.
const MOST: u32 = 4;

/// The instance for lanes that load wide or not, an input in a uniform array of so many bytes or in a storage buffer (0), an activation
/// and a mask; for aligned positions and a residual.
pub(crate) fn instance(
    (lanes, wide): (u32, bool),
    uniform: u64,
    activation: u32,
    mask: bool,
    (vec, residual): (bool, bool),
) -> Instance {
    Instance::new("deform/few.wgsl")
        .with("LANES", lanes)
        .with("ACT", activation)
        .with("MASK", mask.into())
        .with("VEC", vec.into())
        .with("RESIDUAL", residual.into())
        .with("WIDE", wide.into())
        .with("UNIFORM", (uniform / 16) as u32)
}

fn weights(p: &Problem) -> Weights {
    Weights { groups: p.groups, cg: p.cg(), og: p.og(), taps: p.taps() as u32, flip: false }
}

/// Elements of an image of the largest tensor.
fn largest(p: &Problem) -> u64 {
    p.image().max(2 * p.mask_image()).max(p.out_image())
}

/// Bytes of the uniform array that the input is bound as, whole, if it is: a software driver loads from it in half the time, and its
/// adapters are those that there are wide instances for.
fn uniform(p: &Problem, profile: &Profile) -> Option<u64> {
    let (_, wide) = lanes(profile);
    let size = uniform_size((u64::from(p.batch) * p.image() * 4).next_multiple_of(16))?;
    // Room for what stands around a guarded buffer's data.
    let fits = size <= profile.max_uniform && 2 * size <= profile.max_buffer;
    (wide && fits && !p.input_wrapped && profile.class == AdapterClass::Cpu).then_some(size)
}

pub(crate) fn fits(p: &Problem, profile: &Profile) -> bool {
    p.cg() <= MOST
        && has_subgroups(profile)
        && largest(p) <= window_elements(profile)
        && weights(p).packed_bytes() <= profile.max_binding
}

/// Whether it is the best by rule: with one tile of output channels, each of which samples anew, that is not mostly empty.
pub(crate) fn leads(p: &Problem) -> bool {
    (TILE / 4..=TILE).contains(&p.og())
}

pub(crate) fn pack(p: &Problem) -> Pack {
    weights(p).pack(WEIGHT)
}

/// As many images at once as a binding holds.
pub(crate) fn steps(p: &Problem, epilogue: &Epilogue, has_mask: bool, profile: &Profile) -> Vec<Step> {
    ranges(p.batch.into(), window_elements(profile) / largest(p))
        .map(|images| step(p, epilogue, has_mask, profile, &images))
        .collect()
}

fn step(p: &Problem, epilogue: &Epilogue, has_mask: bool, profile: &Profile, images: &Range<u64>) -> Step {
    let (lanes, wide) = lanes(profile);
    let uniform = uniform(p, profile);
    let (x, x_base) = match uniform {
        Some(size) => (Binding::uniform(Slot::Arg(INPUT), size), ((images.start * p.image()) as u32).wrapping_neg()),
        None => image_window(profile, Slot::Arg(INPUT), (p.batch, p.image()), images, false),
    };
    let ((offset, offset_base), (mask, mask_base)) = blocks::fields(p, profile, has_mask, images);
    let (y, y_base) = image_window(profile, Slot::Out, (p.batch, p.out_image()), images, true);
    let residual = epilogue.residual(RESIDUAL, y);
    let (count, positions) = (images.end - images.start, area(p.output));
    let quads = (count * positions.div_ceil(4)) as u32;
    let (quad_tiles, tiles) = (quads.div_ceil(lanes), p.og().div_ceil(TILE));
    let total = quad_tiles * tiles * p.groups;
    let ([in_h, in_w], [_, out_w], [_, k_w]) = (i32s(p.input), i32s(p.output), i32s(p.kernel));
    let ([s_h, s_w], [d_h, d_w], [p_h, p_w]) = (i32s(p.stride), i32s(p.dilation), i32s(p.pad_start));
    let params = FewParams {
        in_h,
        in_w,
        out_w,
        positions: positions as u32,
        k_w,
        taps: p.taps() as u32,
        s_h,
        s_w,
        d_h,
        d_w,
        p_h,
        p_w,
        c_in: p.c_in,
        cg: p.cg(),
        cd: p.cd(),
        offset_groups: p.offset_groups,
        og: p.og(),
        groups: p.groups,
        tiles,
        quads,
        quad_tiles,
        total,
        activation: epilogue.activation.code(),
        slope: epilogue.activation.slope(),
        has_bias: epilogue.has_bias.into(),
        x_base,
        offset_base,
        mask_base,
        y_base,
    };
    let vec = positions.is_multiple_of(4) && [offset_base, mask_base, y_base].iter().all(|base| base.is_multiple_of(4));
    Step {
        instance: instance(
            (lanes, wide),
            uniform.unwrap_or(0),
            epilogue.activation.constant(),
            has_mask,
            (vec, epilogue.has_residual),
        ),
        params: Params::new(&params),
        bindings: vec![x, offset, mask, Binding::read(Slot::Packed), Binding::read(Slot::Arg(BIAS)), residual, y],
        groups: total.into(),
        work: 2 * count * p.out_image() * u64::from(p.cg()) * p.taps(),
    }
}
