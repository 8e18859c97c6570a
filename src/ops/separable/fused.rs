//! Separable convolution in one pass by `conv/separable.wgsl`: the tiled GEMM of the pointwise part, whose input tiles are what the
//! depthwise part makes.

use crate::ops::Epilogue;
use crate::ops::conv::problem::{Problem as Conv, volume};
use crate::ops::conv::subgroup::WeightLayout;
use crate::ops::conv::tiled::{self, Tile, Tiling};
use crate::ops::window::{image_window, ranges, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Params, Plan, Slot, Step};
use crate::profile::{AdapterClass, Profile};

use super::problem::{OP, Problem};
use super::{DEPTHWISE, DEPTHWISE_BIAS, INPUT, POINTWISE, POINTWISE_BIAS, RESIDUAL};

params! {
    /// `Params` of `conv/separable.wgsl`.
    pub struct FusedParams {
        channels: u32, og: u32, groups: u32, blocks: u32,
        in_h: i32, in_w: i32, out_h: i32, out_w: i32,
        k_h: i32, k_w: i32, s_h: i32, s_w: i32,
        d_h: i32, d_w: i32, p_h: i32, p_w: i32,
        tiles: u32, position_tiles: u32, positions: u32, total: u32,
        slices: u32, x_start: u32, y_start: u32, has_bias: u32,
        has_residual: u32, activation: u32, slope: f32, has_between_bias: u32,
        between_activation: u32, between_slope: f32,
    }
}

/// A problem and the tile that it is made in.
pub(crate) struct Fused<'a> {
    p: &'a Problem,
    profile: &'a Profile,
    /// The pointwise part as it runs here: an image is one of the input.
    gemm: Conv,
    tiling: Tiling,
}

/// The instance for a tile and the last activation; `between`: whether the one before it is told apart among all; for positions in
/// multiples of four.
pub(crate) fn instance(tile: Tile, activation: u32, between: bool, vec: bool) -> Instance {
    tile.instance("conv/separable.wgsl").with("ACT", activation).with("DACT", between.into()).with("VEC", vec.into())
}

impl<'a> Fused<'a> {
    /// None where the adapter, few output channels or the size of a tensor rule it out.
    pub fn new(p: &'a Problem, profile: &'a Profile) -> Option<Self> {
        let gemm = Conv { input: p.depthwise.input, ..p.pointwise.clone() };
        let taps = p.depthwise.taps();
        if u64::from(p.depthwise.c_in) * taps * 4 > profile.max_binding {
            return None;
        }
        // A weight and an input for each tap.
        let tiling = Tiling::making(&gemm, profile, 2 * taps.min(1 << 10))?;
        Some(Self { p, profile, gemm, tiling })
    }

    /// Whether it is the best by rule: on GPUs, where a tile of output channels is at least half full and at most two of them make the
    /// depthwise part. On a CPU adapter barriers and workgroup memory cost more than a tensor that goes through memory.
    pub fn leads(&self) -> bool {
        self.profile.class != AdapterClass::Cpu && self.gemm.c_out >= 16 && self.tiles() <= 2
    }

    /// Tiles of output channels.
    fn tiles(&self) -> u32 {
        self.gemm.c_out.div_ceil(self.tiling.tile.bm)
    }

    /// The plan: as many images a dispatch as a binding holds.
    pub fn plan(&self, epilogues: &[Epilogue; 2]) -> Plan {
        let gemm = &self.gemm;
        let (image, out_image) =
            (u64::from(gemm.c_in) * volume(gemm.input), u64::from(gemm.c_out) * volume(gemm.output));
        let each = window_elements(self.profile) / image.max(out_image);
        let steps = ranges(gemm.batch.into(), each);
        let steps = steps.map(|images| self.step(epilogues, images, (image, out_image))).collect();
        let layout = WeightLayout { group: gemm.c_out * gemm.c_in, output: gemm.c_in, input: 1, flip: false };
        let pack = Some(tiled::pack(gemm, &self.tiling, POINTWISE, &layout));
        Plan { op: OP, kernel: "fused", output: gemm.output_shape.clone(), pack, scratch: Vec::new(), steps }
            .cut(self.profile)
    }

    fn step(
        &self,
        [between, last]: &[Epilogue; 2],
        images: std::ops::Range<u64>,
        (image, out_image): (u64, u64),
    ) -> Step {
        let (depthwise, gemm, tile) = (&self.p.depthwise, &self.gemm, self.tiling.tile);
        let (x, x_base) = image_window(self.profile, Slot::Arg(INPUT), (gemm.batch, image), &images, false);
        let (y, y_base) = image_window(self.profile, Slot::Out, (gemm.batch, out_image), &images, true);
        let (x_start, y_start) = (x_base.wrapping_neg(), y_base.wrapping_neg());
        let residual = last.residual(RESIDUAL, y);
        let plane = |axes: [u32; 3]| [axes[1] as i32, axes[2] as i32];
        let ([in_h, in_w], [out_h, out_w]) = (plane(depthwise.input), plane(depthwise.output));
        let ([k_h, k_w], [s_h, s_w]) = (plane(depthwise.kernel), plane(depthwise.stride));
        let ([d_h, d_w], [p_h, p_w]) = (plane(depthwise.dilation), plane(depthwise.pad_start));
        let count = images.end - images.start;
        let positions = count * volume(gemm.output);
        let total = Tiling::workgroups(gemm, tile, count);
        let params = FusedParams {
            channels: gemm.c_in,
            og: gemm.c_out,
            groups: 1,
            blocks: gemm.c_in.div_ceil(4),
            in_h,
            in_w,
            out_h,
            out_w,
            k_h,
            k_w,
            s_h,
            s_w,
            d_h,
            d_w,
            p_h,
            p_w,
            tiles: self.tiles(),
            position_tiles: positions.div_ceil(tile.bn.into()) as u32,
            positions: positions as u32,
            total: total as u32,
            slices: tiled::steps_of_k(gemm).div_ceil(tile.bk.into()) as u32,
            x_start,
            y_start,
            has_bias: last.has_bias.into(),
            has_residual: last.has_residual.into(),
            activation: last.activation.code(),
            slope: last.activation.slope(),
            has_between_bias: between.has_bias.into(),
            between_activation: between.activation.code(),
            between_slope: between.activation.slope(),
        };
        let vec = volume(gemm.output).is_multiple_of(4) && y_start.is_multiple_of(4);
        let made = u64::from(self.tiles()) * depthwise.taps() + u64::from(gemm.c_out);
        Step {
            instance: instance(tile, last.activation.constant(), between.activation.constant() != 0, vec),
            params: Params::new(&params),
            bindings: vec![
                x,
                Binding::read(Slot::Packed),
                Binding::read(Slot::Arg(POINTWISE_BIAS)),
                residual,
                Binding::read(Slot::Arg(DEPTHWISE)),
                Binding::read(Slot::Arg(DEPTHWISE_BIAS)),
                y,
            ],
            groups: total,
            work: 2 * positions * u64::from(gemm.c_in) * made,
        }
    }
}
