//! Deformable convolution in one pass by `deform/fused.wgsl`: the tiled GEMM of dense convolution, whose input tiles are sampled.
//!
//! The input is copied into blocks of four channels first, so that a neighbour's four channels are one load.

use std::ops::Range;

use crate::ops::Epilogue;
use crate::ops::conv::problem::Problem as Dense;
use crate::ops::conv::subgroup::WeightLayout;
use crate::ops::conv::tiled::{self, Tile, Tiling};
use crate::ops::options::Border;
use crate::ops::window::{image_window, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Pack, Params, Slot, Step};
use crate::profile::{AdapterClass, Profile};

use super::problem::{OP, Problem, area, i32s};
use super::{BIAS, RESIDUAL, WEIGHT, blocks};

params! {
    /// `Params` of `deform/fused.wgsl`.
    pub struct FusedParams {
        cg: u32, og: u32, groups: u32, blocks: u32,
        in_h: i32, in_w: i32, out_h: i32, out_w: i32,
        k_w: u32, taps: u32, s_h: i32, s_w: i32,
        d_h: i32, d_w: i32, p_h: i32, p_w: i32,
        bd: u32, offset_groups: u32, hop_taps: u32, hop_blocks: u32,
        tiles: u32, position_tiles: u32, positions: u32, total: u32,
        slices: u32, zero: u32, offset_base: u32, mask_base: u32,
        y_start: u32, activation: u32, slope: f32, has_bias: u32,
        has_residual: u32,
    }
}

/// A problem and the tile that it is made in.
pub(crate) struct Fused<'a> {
    p: &'a Problem,
    profile: &'a Profile,
    /// The convolution that takes as much: its products are the same.
    dense: Dense,
    tiling: Tiling,
}

pub(crate) fn instance(tile: Tile, activation: u32, vec: bool, mask: bool) -> Instance {
    tile.instance("deform/fused.wgsl").with("ACT", activation).with("VEC", vec.into()).with("MASK", mask.into())
}

/// Whether the kernel is the best by rule: on GPUs, for tiles of output channels that are at least half full. On a CPU adapter
/// barriers and workgroup memory cost more than columns do.
pub(crate) fn leads(p: &Problem, profile: &Profile) -> bool {
    profile.class != AdapterClass::Cpu && p.og() >= 16
}

impl<'a> Fused<'a> {
    /// None where the adapter, the groups or the size of a tensor rule it out.
    pub fn new(p: &'a Problem, profile: &'a Profile) -> Option<Self> {
        let lift = |[height, width]: [u32; 2], depth: u32| [depth, height, width];
        let dense = Dense {
            op: OP,
            batch: p.batch,
            c_in: p.c_in,
            c_out: p.c_out,
            groups: p.groups,
            input: lift(p.input, 1),
            kernel: lift(p.kernel, 1),
            stride: lift(p.stride, 1),
            dilation: lift(p.dilation, 1),
            pad_start: lift(p.pad_start, 0),
            pad_end: [0; 3],
            output: lift(p.output, 1),
            border: Border::Zeros,
            flip: false,
            fast_math: false,
            first_axis: 1,
            output_shape: p.output_shape.clone(),
        };
        let image = blocks::image(p).max(2 * p.mask_image());
        if !blocks::pay(p) || image + 4 > window_elements(profile) {
            return None;
        }
        let tiling = Tiling::making(&dense, profile, 1)?;
        Some(Self { p, profile, dense, tiling })
    }

    pub fn pack(&self) -> Pack {
        let (p, taps) = (self.p, self.p.taps() as u32);
        let layout = WeightLayout { group: p.og() * p.cg() * taps, output: p.cg() * taps, input: taps, flip: false };
        tiled::pack(&self.dense, &self.tiling, WEIGHT, &layout)
    }

    /// Dispatches and scratch bytes: as many images at once as a binding holds.
    pub fn steps(&self, epilogue: &Epilogue, has_mask: bool) -> (Vec<Step>, Vec<u64>) {
        let (p, profile) = (self.p, self.profile);
        let (batch, copied, out_image) = (u64::from(p.batch), blocks::image(p), p.out_image());
        let largest = p.image().max(2 * p.mask_image()).max(out_image).max(copied + 4);
        let each = (window_elements(profile) / largest).clamp(1, batch);
        let mut steps = Vec::new();
        for first in (0..batch).step_by(each as usize) {
            let images = first..batch.min(first + each);
            steps.push(blocks::copy_step(p, profile, &images, 0));
            steps.push(self.step(epilogue, has_mask, &images));
        }
        (steps, vec![each * copied * 4 + 16])
    }

    fn step(&self, epilogue: &Epilogue, has_mask: bool, images: &Range<u64>) -> Step {
        let (p, profile, tile) = (self.p, self.profile, self.tiling.tile);
        let ((offset, offset_base), (mask, mask_base)) = blocks::fields(p, profile, has_mask, images);
        let (y, y_base) = image_window(profile, Slot::Out, (p.batch, p.out_image()), images, true);
        let (y_start, images) = (y_base.wrapping_neg(), images.end - images.start);
        let residual = epilogue.residual(RESIDUAL, y);
        let group_blocks = p.cg().div_ceil(4);
        let positions = images * area(p.output);
        let total = Tiling::workgroups(&self.dense, tile, images);
        let ([in_h, in_w], [out_h, out_w]) = (i32s(p.input), i32s(p.output));
        let ([s_h, s_w], [d_h, d_w], [p_h, p_w]) = (i32s(p.stride), i32s(p.dilation), i32s(p.pad_start));
        let params = FusedParams {
            cg: p.cg(),
            og: p.og(),
            groups: p.groups,
            blocks: group_blocks,
            in_h,
            in_w,
            out_h,
            out_w,
            k_w: p.kernel[1],
            taps: p.taps() as u32,
            s_h,
            s_w,
            d_h,
            d_w,
            p_h,
            p_w,
            bd: p.groups * group_blocks / p.offset_groups,
            offset_groups: p.offset_groups,
            hop_taps: tile.side() / group_blocks,
            hop_blocks: tile.side() % group_blocks,
            tiles: p.og().div_ceil(tile.bm),
            position_tiles: positions.div_ceil(tile.bn.into()) as u32,
            positions: positions as u32,
            total: total as u32,
            slices: tiled::steps_of_k(&self.dense).div_ceil(tile.bk.into()) as u32,
            zero: (images * blocks::image(p) / 4) as u32,
            offset_base,
            mask_base,
            y_start,
            activation: epilogue.activation.code(),
            slope: epilogue.activation.slope(),
            has_bias: epilogue.has_bias.into(),
            has_residual: epilogue.has_residual.into(),
        };
        let vec = area(p.output).is_multiple_of(4) && y_start.is_multiple_of(4);
        Step {
            instance: instance(tile, epilogue.activation.constant(), vec, has_mask),
            params: Params::new(&params),
            bindings: vec![
                Binding::read(Slot::Scratch(0)),
                Binding::read(Slot::Packed),
                Binding::read(Slot::Arg(BIAS)),
                residual,
                offset,
                mask,
                y,
            ],
            groups: total,
            work: 2 * positions * u64::from(p.c_out) * u64::from(p.cg()) * p.taps(),
        }
    }
}
