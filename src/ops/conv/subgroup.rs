//! Plans for `conv/subgroup.wgsl`: an implicit GEMM without barriers, for convolution and transposed convolution.

use crate::ops::Epilogue;
use crate::ops::options::Border;
use crate::params::params;
use crate::plan::{Binding, Instance, Pack, Params, Slot, Step};
use crate::profile::{AdapterClass, Profile};

use super::problem::{Axes, Problem, volume};
use crate::ops::window::{window, window_elements};

params! {
    /// `Params` of `conv/subgroup.wgsl`.
    pub struct SubgroupParams {
        cg: u32, og: u32, groups: u32, blocks: u32,
        in_d: i32, in_h: i32, in_w: i32, zero: u32,
        out_d: i32, out_h: i32, out_w: i32, tiles: u32,
        part_d: i32, part_h: i32, part_w: i32, positions: u32,
        k_d: i32, k_h: i32, k_w: i32, position_tiles: u32,
        phases_d: i32, phases_h: i32, phases_w: i32, activation: u32,
        step_d: i32, step_h: i32, step_w: i32, slope: f32,
        tap_d: i32, tap_h: i32, tap_w: i32, has_bias: u32,
        k_step_d: i32, k_step_h: i32, k_step_w: i32, has_residual: u32,
        p_d: i32, p_h: i32, p_w: i32, positions_first: u32,
        d_d: i32, d_h: i32, d_w: i32, total: u32,
        y_base: u32, x_start: u32,
    }
}

params! {
    /// `Params` of `conv/blocks.wgsl`.
    pub struct BlocksParams {
        cg: u32, groups: u32, blocks: u32, total: u32,
        in_d: i32, in_h: i32, in_w: i32, border: u32,
        out_d: i32, out_h: i32, out_w: i32, x_base: u32,
        p_d: i32, p_h: i32, p_w: i32,
    }
}

params! {
    /// `Params` of `conv/pack.wgsl`.
    pub struct PackParams {
        cg: u32, og: u32, taps: u32, channels: u32,
        group_stride: u32, o_stride: u32, c_stride: u32, flip: u32,
        tiles: u32, total: u32, taps_inside: u32,
    }
}

/// Subgroup sizes that `conv/subgroup.wgsl` is instantiated for.
pub(crate) const SUBGROUPS: [u32; 5] = [4, 8, 16, 32, 64];
/// Those of software adapters, for which there are shaders with [wide loads](Profile::wide_loads) too.
pub(crate) const SOFTWARE_SUBGROUPS: [u32; 3] = [4, 8, 16];
/// Output channels of a tile.
pub(crate) const TILES: [u32; 4] = [8, 16, 24, 32];

/// Whether subgroups have one size, which there are shaders for, and a workgroup holds one.
pub(crate) fn has_subgroups(profile: &Profile) -> bool {
    profile.subgroup.is_some_and(|size| SUBGROUPS.contains(&size) && size <= profile.max_invocations)
}

/// Lanes of a subgroup, and whether they load wide.
pub(crate) fn lanes(profile: &Profile) -> (u32, bool) {
    let lanes = profile.subgroup.unwrap_or(SUBGROUPS[0]);
    (lanes, profile.wide_loads && SOFTWARE_SUBGROUPS.contains(&lanes))
}

/// The same for kernels that hand values round on software adapters only: elsewhere 0, every thread loads for itself.
pub(crate) fn software_lanes(profile: &Profile) -> (u32, bool) {
    let offered = profile.subgroup.is_some_and(|size| SOFTWARE_SUBGROUPS.contains(&size));
    if offered && profile.class == AdapterClass::Cpu { lanes(profile) } else { (0, false) }
}

/// What the GEMM kernel needs to know, of a convolution or of a transposed one.
pub(crate) struct Gemm {
    pub batch: u32,
    pub c_in: u32,
    pub c_out: u32,
    pub groups: u32,
    /// Extents of the input as it lies, padding written out or not.
    pub input: Axes,
    pub output: Axes,
    pub kernel: Axes,
    /// Interleaved parts of the output along each axis.
    pub phases: [i32; 3],
    pub step: [i32; 3],
    pub tap: [i32; 3],
    pub k_step: [i32; 3],
    pub pad: [i32; 3],
    pub dilation: [i32; 3],
}

/// How the input of the GEMM lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In blocks of four channels (`conv/blocks.wgsl`).
    Blocks,
    /// As it is; the first image starts at this element.
    Planar(u32),
    /// A column of taps and blocks for each position, tile by tile.
    Columns,
}

impl Layout {
    /// The shader's constant.
    fn constant(self) -> u32 {
        match self {
            Layout::Blocks => 0,
            Layout::Planar(_) => 1,
            Layout::Columns => 2,
        }
    }
}

/// Strides of the weight tensor: (group, output channel, input channel), and whether taps count backwards.
pub(crate) struct WeightLayout {
    pub group: u32,
    pub output: u32,
    pub input: u32,
    pub flip: bool,
}

fn i32s(axes: Axes) -> [i32; 3] {
    axes.map(|value| value as i32)
}

impl Gemm {
    fn cg(&self) -> u32 {
        self.c_in / self.groups
    }

    fn og(&self) -> u32 {
        self.c_out / self.groups
    }

    fn blocks(&self) -> u32 {
        self.cg().div_ceil(4)
    }

    /// Output positions of one part and image.
    fn part(&self) -> Axes {
        std::array::from_fn(|a| self.output[a].div_ceil(self.phases[a] as u32))
    }

    /// Output channels of a tile. A tile loads its input and its weights once a step, whatever its width, which costs as much as
    /// some 26 of its multiplications (llvmpipe: two loads of 44 ns, 3.4 ns a vec4).
    pub fn tile(&self) -> u32 {
        let cost = |tile: &u32| u64::from(self.og().div_ceil(*tile)) * u64::from(26 + *tile);
        TILES.into_iter().min_by_key(cost).unwrap_or(TILES[0])
    }

    pub fn of(p: &Problem) -> Self {
        // Any border but zeros is written out by the copy into blocks; then no tap falls outside.
        let written = p.has_border();
        let padded = |a: usize| p.input[a] + p.pad_start[a] + p.pad_end[a];
        Self {
            batch: p.batch,
            c_in: p.c_in,
            c_out: p.c_out,
            groups: p.groups,
            input: if written { std::array::from_fn(padded) } else { p.input },
            output: p.output,
            kernel: p.kernel,
            phases: [1; 3],
            step: i32s(p.stride),
            tap: i32s(p.dilation),
            k_step: [1; 3],
            pad: if written { [0; 3] } else { i32s(p.pad_start) },
            dilation: i32s(p.dilation),
        }
    }

    /// Whether the input can be read as it lies, as vec4s of four positions: a pointwise convolution of whole blocks.
    pub fn planar(&self) -> bool {
        volume(self.kernel) == 1
            && self.input == self.output
            && self.step == [1; 3]
            && self.pad == [0; 3]
            && volume(self.input).is_multiple_of(4)
            && self.cg().is_multiple_of(4)
    }

    /// Scratch bytes of the blocked input of one image, the vec4 of zeros left out.
    fn blocked_bytes(&self) -> u64 {
        volume(self.input).saturating_mul(u64::from(self.groups * self.blocks()) * 16)
    }

    pub fn packed_bytes(&self) -> u64 {
        let tiles = u64::from(self.og().div_ceil(self.tile()));
        let (blocks, tile) = (u64::from(self.blocks()), u64::from(self.tile()));
        u64::from(self.groups) * tiles * volume(self.kernel) * blocks * 4 * tile * 4
    }

    /// Whether the kernel can take it: the packed weights, and so the weights, fit a binding, and so does each image.
    pub fn fits(&self, profile: &Profile) -> bool {
        let most = window_elements(profile) * 4;
        let image = volume(self.input).saturating_mul(u64::from(self.c_in) * 4);
        let out_image = u64::from(self.c_out) * volume(self.output) * 4;
        has_subgroups(profile)
            && self.packed_bytes() <= profile.max_binding
            && self.blocked_bytes().max(image).max(out_image) <= most
    }

    pub fn pack(&self, arg: usize, layout: &WeightLayout) -> Pack {
        let tile = self.tile();
        let tiles = self.og().div_ceil(tile);
        let taps = volume(self.kernel) as u32;
        let params = PackParams {
            cg: self.cg(),
            og: self.og(),
            taps,
            channels: self.blocks() * 4,
            group_stride: layout.group,
            o_stride: layout.output,
            c_stride: layout.input,
            flip: layout.flip.into(),
            tiles,
            total: (self.packed_bytes() / 16) as u32,
            taps_inside: 0,
        };
        let key = [tile, self.cg(), self.og(), taps, layout.group, layout.output, layout.input, layout.flip.into()];
        Pack { arg, key: ("subgroup", key), bytes: self.packed_bytes(), steps: vec![params.step(arg, tile)] }
    }

    /// Dispatches and scratch bytes. `x` and `residual` are slots of the call; `copy` tells how the input is put into blocks, none
    /// where it lies planar.
    pub fn steps(
        &self,
        profile: &Profile,
        epilogue: &Epilogue,
        (x, bias, residual): (usize, usize, usize),
        copy: Option<&Copy>,
    ) -> (Vec<Step>, Vec<u64>) {
        let (image, out_image) =
            (u64::from(self.c_in) * self.source_volume(copy), u64::from(self.c_out) * volume(self.output));
        let batch = u64::from(self.batch);
        let most = window_elements(profile);
        let scratch_image = copy.map_or(0, |_| self.blocked_bytes() / 4);
        let each = (most / image.max(out_image).max(scratch_image + 4)).clamp(1, batch);
        let each = batch.div_ceil(batch.div_ceil(each));
        let mut steps = Vec::new();
        let mut first = 0;
        while first < batch {
            let count = each.min(batch - first);
            let range = first * image..(first + count) * image;
            let (x, x_base) = window(profile, Slot::Arg(x), range, batch * image, false);
            let out_range = first * out_image..(first + count) * out_image;
            let (y, y_base) = window(profile, Slot::Out, out_range, batch * out_image, true);
            let residual = epilogue.residual(residual, y);
            let x_start = first * image - u64::from(x_base);
            let (input, layout) = match copy {
                Some(copy) => {
                    steps.push(self.copy_step(profile, copy, x, (x_start as i64, count)));
                    (Binding::read(Slot::Scratch(0)), Layout::Blocks)
                }
                None => (x, Layout::Planar(x_start as u32)),
            };
            let bindings = vec![input, Binding::read(Slot::Packed), Binding::read(Slot::Arg(bias)), residual, y];
            let y_start = (first * out_image) as i64 - i64::from(y_base);
            let extents = (count as u32, self.part());
            steps.push(self.gemm_step(profile, epilogue, bindings, extents, y_start, layout));
            first += count;
        }
        let scratch = copy.map(|_| each * self.blocked_bytes() + 16);
        (steps, scratch.into_iter().collect())
    }

    fn source_volume(&self, copy: Option<&Copy>) -> u64 {
        copy.map_or(volume(self.input), |copy| volume(copy.source))
    }

    /// Copies images into blocks, in scratch buffer 0. `start`: the first image's element in the binding.
    pub fn copy_step(&self, profile: &Profile, copy: &Copy, x: Binding, (start, count): (i64, u64)) -> Step {
        let total = count * self.blocked_bytes() / 16;
        let ([in_d, in_h, in_w], [out_d, out_h, out_w]) = (i32s(copy.source), i32s(self.input));
        let [p_d, p_h, p_w] = copy.pad;
        let params = BlocksParams {
            cg: self.cg(),
            groups: self.groups,
            blocks: self.blocks(),
            total: total as u32,
            in_d,
            in_h,
            in_w,
            border: copy.border.code(),
            out_d,
            out_h,
            out_w,
            // Positions count from the first image of the part: a window that starts before it has a negative base.
            x_base: start.wrapping_neg() as u32,
            p_d,
            p_h,
            p_w,
        };
        Step {
            instance: blocks_instance(profile.wide_loads),
            params: Params::new(&params),
            bindings: vec![x, Binding::write(Slot::Scratch(0))],
            groups: (total + 1).div_ceil(64),
            work: total * 4,
        }
    }

    /// One dispatch over some images and, of each, the positions of `part`: those of the whole output, or of a slice that starts
    /// at `y_start`.
    pub fn gemm_step(
        &self,
        profile: &Profile,
        epilogue: &Epilogue,
        bindings: Vec<Binding>,
        (batch, part): (u32, Axes),
        y_start: i64,
        layout: Layout,
    ) -> Step {
        let (lanes, wide) = lanes(profile);
        let tile = self.tile();
        let tiles = self.og().div_ceil(tile);
        let positions = u64::from(batch) * volume(part);
        let position_tiles = positions.div_ceil(u64::from(lanes) * 4);
        let phases: u64 = self.phases.iter().map(|&count| count as u64).product();
        let total = position_tiles * u64::from(tiles * self.groups) * phases;
        let transposed = phases > 1 || self.k_step != [1; 3] || self.tap.iter().any(|&tap| tap < 0);
        let vec = phases == 1 && volume(self.output).is_multiple_of(4) && y_start % 4 == 0;
        // A tile's weights stay in a cache while positions go by; the input does while tiles go by. Which is the larger?
        let weights = self.packed_bytes() / u64::from(self.groups);
        let positions_first = weights > 256 << 10;
        let ([in_d, in_h, in_w], [out_d, out_h, out_w]) = (i32s(self.input), i32s(self.output));
        let ([part_d, part_h, part_w], [k_d, k_h, k_w]) = (i32s(part), i32s(self.kernel));
        let [phases_d, phases_h, phases_w] = self.phases;
        let ([step_d, step_h, step_w], [tap_d, tap_h, tap_w]) = (self.step, self.tap);
        let ([k_step_d, k_step_h, k_step_w], [p_d, p_h, p_w]) = (self.k_step, self.pad);
        let [d_d, d_h, d_w] = self.dilation;
        let params = SubgroupParams {
            cg: self.cg(),
            og: self.og(),
            groups: self.groups,
            blocks: self.blocks(),
            in_d,
            in_h,
            in_w,
            zero: (u64::from(batch) * self.blocked_bytes() / 16) as u32,
            out_d,
            out_h,
            out_w,
            tiles,
            part_d,
            part_h,
            part_w,
            positions: positions as u32,
            k_d,
            k_h,
            k_w,
            position_tiles: position_tiles as u32,
            phases_d,
            phases_h,
            phases_w,
            activation: epilogue.activation.code(),
            step_d,
            step_h,
            step_w,
            slope: epilogue.activation.slope(),
            tap_d,
            tap_h,
            tap_w,
            has_bias: epilogue.has_bias.into(),
            k_step_d,
            k_step_h,
            k_step_w,
            has_residual: epilogue.has_residual.into(),
            p_d,
            p_h,
            p_w,
            positions_first: positions_first.into(),
            d_d,
            d_h,
            d_w,
            total: total as u32,
            y_base: y_start.wrapping_neg() as u32,
            x_start: if let Layout::Planar(start) = layout { start / 4 } else { 0 },
        };
        let products = u64::from(self.cg()) * volume(self.kernel);
        Step {
            instance: instance(
                (lanes, wide),
                tile,
                epilogue.activation.constant(),
                (vec, layout, transposed, epilogue.has_residual),
            ),
            params: Params::new(&params),
            bindings,
            groups: total,
            work: (2 * positions * u64::from(self.c_out)).saturating_mul(products),
        }
    }
}

/// How the input is copied into blocks: its own extents, the padding that is written out, and what stands there.
pub(crate) struct Copy {
    pub source: Axes,
    pub pad: [i32; 3],
    pub border: Border,
}

impl Copy {
    pub fn of(p: &Problem) -> Self {
        let written = p.has_border();
        Self { source: p.input, pad: if written { i32s(p.pad_start) } else { [0; 3] }, border: p.border }
    }
}

pub(crate) fn blocks_instance(wide: bool) -> Instance {
    Instance::new("conv/blocks.wgsl").with("WIDE", wide.into())
}

pub(crate) fn pack_instance(tile: u32) -> Instance {
    Instance::new("conv/pack.wgsl").with("OC", tile)
}

impl PackParams {
    /// Packs an argument in tiles of so many output channels.
    pub fn step(&self, arg: usize, tile: u32) -> Step {
        Step {
            instance: pack_instance(tile),
            params: Params::new(self),
            bindings: vec![Binding::read(Slot::Arg(arg)), Binding::write(Slot::Packed)],
            groups: u64::from(self.total).div_ceil(64),
            work: u64::from(self.total) * 4,
        }
    }
}

pub(crate) fn instance(
    (lanes, wide): (u32, bool),
    tile: u32,
    activation: u32,
    (vec, layout, transposed, residual): (bool, Layout, bool, bool),
) -> Instance {
    Instance::new("conv/subgroup.wgsl")
        .with("S", lanes)
        .with("OC", tile)
        .with("ACT", activation)
        .with("VEC", vec as u32)
        .with("X", layout.constant())
        .with("TRANSPOSED", transposed as u32)
        .with("RESIDUAL", residual as u32)
        .with("WIDE", wide as u32)
}

#[cfg(test)]
mod tests {
    use super::Gemm;
    use crate::Conv2d;
    use crate::ops::conv::problem::Problem;

    #[test]
    fn tiles_that_cost_least() {
        for (outputs, tile) in [
            (1, 8),
            (8, 8),
            (9, 16),
            (16, 16),
            (17, 24),
            (24, 24),
            (25, 32),
            (32, 32),
            (33, 24),
            (48, 24),
            (49, 32),
            (64, 32),
            (65, 24),
            (72, 24),
            (73, 32),
            (97, 32),
        ] {
            for groups in [1, 3] {
                let options = Conv2d::new().groups(groups);
                let p = Problem::new(&options, &[1, 4 * groups, 5, 5], &[outputs * groups, 4, 1, 1]).expect("problem");
                assert_eq!(Gemm::of(&p).tile(), tile, "{outputs}");
            }
        }
    }
}
