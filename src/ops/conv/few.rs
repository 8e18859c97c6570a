//! Plans for `conv/few.wgsl`: few input channels, as a network's first layer has, in one or two dimensions.

use crate::ops::Epilogue;
use crate::ops::window::{ranges, window, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Pack, Params, Slot, Step};
use crate::profile::Profile;

use super::problem::{Problem, volume};
use super::subgroup::{PackParams, has_subgroups, lanes};

params! {
    /// `Params` of `conv/few.wgsl`.
    pub struct FewParams {
        cg: u32, og: u32, groups: u32, tiles: u32,
        in_h: i32, in_w: i32, out_h: i32, out_w: i32,
        k_h: i32, s_h: i32, d_h: i32, p_h: i32,
        p_w: i32, quads: u32, quad_tiles: u32, row_quads: u32,
        activation: u32, slope: f32, has_bias: u32, total: u32,
        x_base: u32, y_base: u32,
    }
}

/// Kernel widths and strides along rows that are instantiated, and output channels of a tile.
pub(crate) const WIDTHS: [u32; 3] = [3, 5, 7];
pub(crate) const STRIDES: [u32; 2] = [1, 2];
pub(crate) const TILE: u32 = 16;
/// Input channels of a group at most; from more on the GEMM, which takes four at a time, has the better use of a load.
const MOST: u32 = 4;

pub(crate) fn instance(
    (lanes, wide): (u32, bool),
    (width, stride): (u32, u32),
    activation: u32,
    (vec, residual): (bool, bool),
) -> Instance {
    Instance::new("conv/few.wgsl")
        .with("LANES", lanes)
        .with("KW", width)
        .with("S", stride)
        .with("ACT", activation)
        .with("VEC", vec.into())
        .with("RESIDUAL", residual.into())
        .with("WIDE", wide.into())
}

/// Weights [O,CG,K] that a tile's lanes hand round: packed as [G,T,CG,K,OC].
pub(crate) struct Weights {
    pub groups: u32,
    pub cg: u32,
    pub og: u32,
    pub taps: u32,
    pub flip: bool,
}

impl Weights {
    fn of(p: &Problem) -> Self {
        Self { groups: p.groups, cg: p.cg(), og: p.og(), taps: p.taps() as u32, flip: p.flip }
    }

    pub fn packed_bytes(&self) -> u64 {
        let channels = u64::from(self.groups) * u64::from(self.og.next_multiple_of(TILE)) * u64::from(self.cg);
        channels * u64::from(self.taps) * 4
    }

    pub fn pack(&self, arg: usize) -> Pack {
        let &Self { cg, og, taps, .. } = self;
        let (bytes, flip) = (self.packed_bytes(), self.flip.into());
        let params = PackParams {
            cg,
            og,
            taps,
            channels: cg,
            group_stride: og * cg * taps,
            o_stride: cg * taps,
            c_stride: taps,
            flip,
            tiles: og.div_ceil(TILE),
            total: (bytes / 16) as u32,
            taps_inside: 1,
        };
        Pack { arg, key: ("few", [cg, og, taps, flip, 0, 0, 0, 0]), bytes, steps: vec![params.step(arg, TILE)] }
    }
}

pub(crate) fn fits(p: &Problem, profile: &Profile) -> bool {
    let most = window_elements(profile);
    p.cg() <= MOST
        // Then the kernel has one plane too.
        && p.input[0] == 1
        && (p.pad_start[0], p.pad_end[0]) == (0, 0)
        && WIDTHS.contains(&p.kernel[2])
        && STRIDES.contains(&p.stride[2])
        && p.dilation[2] == 1
        && !p.has_border()
        && has_subgroups(profile)
        && u64::from(p.c_in) * volume(p.input) <= most
        && u64::from(p.c_out) * volume(p.output) <= most
        && Weights::of(p).packed_bytes() <= profile.max_binding
}

/// Whether its tile of output channels is mostly full, for which alone it is quick.
pub(crate) fn pays(p: &Problem) -> bool {
    p.og() * 4 >= p.og().next_multiple_of(TILE) * 3
}

pub(crate) fn pack(p: &Problem) -> Pack {
    Weights::of(p).pack(1)
}

pub(crate) fn steps(p: &Problem, epilogue: &Epilogue, profile: &Profile) -> Vec<Step> {
    let (lanes, wide) = lanes(profile);
    let ([_, in_h, in_w], [_, out_h, out_w]) = (p.input, p.output);
    let (image, out_image) = (u64::from(p.c_in) * volume(p.input), u64::from(p.c_out) * volume(p.output));
    let batch = u64::from(p.batch);
    let tiles = p.og().div_ceil(TILE);
    let row_quads = out_w.div_ceil(4);
    let mut steps = Vec::new();
    for part in ranges(batch, window_elements(profile) / image.max(out_image)) {
        let (x, x_base) = window(profile, Slot::Arg(0), part.start * image..part.end * image, batch * image, false);
        let out_range = part.start * out_image..part.end * out_image;
        let (y, y_base) = window(profile, Slot::Out, out_range, batch * out_image, true);
        let residual = epilogue.residual(3, y);
        let count = part.end - part.start;
        let quads = count as u32 * out_h * row_quads;
        let quad_tiles = quads.div_ceil(lanes);
        let total = quad_tiles * tiles * p.groups;
        // Images count from the first of the part, in both directions modulo 2^32.
        let y_base = y_base.wrapping_sub((part.start * out_image) as u32);
        let params = FewParams {
            cg: p.cg(),
            og: p.og(),
            groups: p.groups,
            tiles,
            in_h: in_h as i32,
            in_w: in_w as i32,
            out_h: out_h as i32,
            out_w: out_w as i32,
            k_h: p.kernel[1] as i32,
            s_h: p.stride[1] as i32,
            d_h: p.dilation[1] as i32,
            p_h: p.pad_start[1] as i32,
            p_w: p.pad_start[2] as i32,
            quads,
            quad_tiles,
            row_quads,
            activation: epilogue.activation.code(),
            slope: epilogue.activation.slope(),
            has_bias: epilogue.has_bias.into(),
            total,
            x_base: x_base.wrapping_sub((part.start * image) as u32),
            y_base,
        };
        let vec = out_w.is_multiple_of(4) && y_base.is_multiple_of(4);
        let constants = (p.kernel[2], p.stride[2]);
        steps.push(Step {
            instance: instance((lanes, wide), constants, epilogue.activation.constant(), (vec, epilogue.has_residual)),
            params: Params::new(&params),
            bindings: vec![x, Binding::read(Slot::Packed), Binding::read(Slot::Arg(2)), residual, y],
            groups: total.into(),
            work: p.flops() / batch * count,
        });
    }
    steps
}
