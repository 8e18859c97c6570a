//! Plans for `conv/depthwise.wgsl`: one input channel a group, the common kernel sizes and strides.

use crate::ops::Epilogue;
use crate::params::params;
use crate::plan::{Binding, Instance, Params, Slot, Step};
use crate::profile::{AdapterClass, Profile};

use super::problem::{Problem, gcd, volume};
use super::subgroup::software_lanes;
use crate::ops::window::{window, window_elements};

params! {
    /// `Params` of `conv/depthwise.wgsl`.
    pub struct DepthwiseParams {
        channels: u32, multiplier: u32, in_h: i32, in_w: i32,
        out_h: i32, out_w: i32, p_h: i32, p_w: i32,
        s_h: i32, s_w: i32, d_h: i32, d_w: i32,
        phases_h: u32, phases_w: u32, spread_w: i32, row_in: i32,
        h_step: i32, w_step: i32, quads: u32, strips: u32,
        rows: i32, row_count: i32, total: u32, flip: u32,
        activation: u32, slope: f32, has_bias: u32, x_base: u32,
        y_base: u32, taps: i32,
    }
}

/// Kernel extents (height, width) that are instantiated.
pub(crate) const KERNELS: [(u32, u32); 6] = [(1, 3), (1, 5), (1, 7), (3, 3), (5, 5), (7, 7)];
/// Strides, after what they have in common with the dilation is taken out.
pub(crate) const STRIDES: [u32; 2] = [1, 2];

/// How a thread reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    /// Rows are loaded as vec4s.
    pub load: bool,
    /// Rows are stored as vec4s.
    pub store: bool,
    /// Columns of neighbours are taken from their lanes, in subgroups of so many; 0: every thread loads for itself.
    pub lanes: u32,
    /// Lanes load by fours as two 64-bit integers.
    pub wide: bool,
}

pub(crate) fn instance(
    (k_h, k_w): (u32, u32),
    stride: u32,
    activation: u32,
    access: Access,
    residual: bool,
) -> Instance {
    Instance::new("conv/depthwise.wgsl")
        .with("KH", k_h)
        .with("KW", k_w)
        .with("S", stride)
        .with("ACT", activation)
        .with("VEC", access.load.into())
        .with("VEC_Y", access.store.into())
        .with("RESIDUAL", residual.into())
        .with("LANES", access.lanes)
        .with("WIDE", access.wide.into())
}

/// Stride and spread along an axis: outputs `spread` apart have taps that fall on each other as under that stride without dilation.
fn stride_and_spread(stride: u32, dilation: u32) -> (u32, u32) {
    let common = gcd(stride, dilation);
    (stride / common, dilation / common)
}

pub(crate) fn fits(p: &Problem, profile: &Profile) -> bool {
    let [k_d, k_h, k_w] = p.kernel;
    let (s_h, _) = stride_and_spread(p.stride[1], p.dilation[1]);
    let (s_w, _) = stride_and_spread(p.stride[2], p.dilation[2]);
    let most = window_elements(profile);
    p.cg() == 1
        && k_d == 1
        && p.input[0] == 1
        && p.pad_start[0] == 0
        && p.output[0] == 1
        && KERNELS.contains(&(k_h, k_w))
        && STRIDES.contains(&s_w)
        // A stride that is never taken along H is as good as that along W.
        && (s_h == s_w || k_h == 1 || p.output[1] == 1)
        && !p.has_border()
        && u64::from(p.c_in) * volume(p.input) <= most
        && u64::from(p.c_out) * volume(p.output) <= most
        && u64::from(p.c_out) * p.taps() * 4 <= profile.max_binding
}

/// How the output of a channel is dealt out to threads.
struct Tiling {
    stride: u32,
    phases_h: u32,
    phases_w: u32,
    spread_w: u32,
    h_step: u32,
    w_step: u32,
    /// Input rows between rows, for kernels of one row.
    row_in: u32,
    /// Rows of a phase.
    row_count: u32,
    quads: u32,
    rows: u32,
    strips: u32,
}

impl Tiling {
    fn of(p: &Problem, profile: &Profile) -> Self {
        let ([_, k_h, _], [_, out_h, out_w]) = (p.kernel, p.output);
        let (stride, spread_w) = stride_and_spread(p.stride[2], p.dilation[2]);
        let spread_h = if k_h == 1 || out_h == 1 { 1 } else { stride_and_spread(p.stride[1], p.dilation[1]).1 };
        let mut t = Self {
            stride,
            // Of outputs fewer than the spread, each is a phase of its own.
            phases_h: spread_h.min(out_h),
            phases_w: spread_w.min(out_w),
            spread_w,
            h_step: spread_h,
            w_step: 0,
            row_in: p.stride[1],
            row_count: out_h.div_ceil(spread_h),
            quads: out_w.div_ceil(spread_w).div_ceil(4),
            rows: 0,
            strips: 0,
        };
        if out_h == 1 && k_h == 1 {
            (t.h_step, t.row_in) = (0, 0);
            if spread_w > 1 {
                (t.row_count, t.w_step, t.phases_w) = (t.phases_w, 1, 1);
            } else if t.quads > PART {
                (t.row_count, t.w_step, t.quads) = (t.quads.div_ceil(PART), PART * 4, PART);
            }
        }
        // Long strips load weights, and the rows above and below, less often; short ones make more threads.
        let wanted = if profile.class == AdapterClass::Cpu { 2048 } else { 16384 };
        let columns = u64::from(p.batch) * u64::from(p.c_out) * u64::from(t.phases_h * t.phases_w) * u64::from(t.quads);
        let strips = (wanted / columns.max(1)).clamp(1, u64::from(t.row_count.div_ceil(k_h.max(4)))) as u32;
        t.rows = t.row_count.div_ceil(strips);
        t.strips = t.row_count.div_ceil(t.rows);
        t
    }
}

/// Quads of a part of a single row: a multiple of every subgroup size.
const PART: u32 = 64;

pub(crate) fn steps(p: &Problem, epilogue: &Epilogue, profile: &Profile) -> Vec<Step> {
    let [_, k_h, k_w] = p.kernel;
    let ([_, in_h, in_w], [_, out_h, out_w]) = (p.input, p.output);
    let t = Tiling::of(p, profile);
    // On a GPU the neighbours' columns come from the cache as fast as from their lanes.
    let (lanes, wide) = software_lanes(profile);
    let access = Access {
        load: in_w.is_multiple_of(4) && p.pad_start[2] == (k_w - 1) / 2 && p.dilation[2] == 1,
        store: out_w.is_multiple_of(4) && t.spread_w == 1,
        lanes,
        wide,
    };
    let (image, out_image) = (u64::from(p.c_in) * volume(p.input), u64::from(p.c_out) * volume(p.output));
    let batch = u64::from(p.batch);
    let each = (window_elements(profile) / image.max(out_image)).clamp(1, batch);
    let mut steps = Vec::new();
    let mut first = 0;
    while first < batch {
        let count = each.min(batch - first);
        let (x, x_base) = window(profile, Slot::Arg(0), first * image..(first + count) * image, batch * image, false);
        let out_range = first * out_image..(first + count) * out_image;
        let (y, y_base) = window(profile, Slot::Out, out_range, batch * out_image, true);
        let residual = epilogue.residual(3, y);
        let total = count * u64::from(p.c_out) * u64::from(t.phases_h * t.phases_w) * u64::from(t.quads * t.strips);
        let params = DepthwiseParams {
            channels: p.c_in,
            multiplier: p.og(),
            in_h: in_h as i32,
            in_w: in_w as i32,
            out_h: out_h as i32,
            out_w: out_w as i32,
            p_h: p.pad_start[1] as i32,
            p_w: p.pad_start[2] as i32,
            s_h: p.stride[1] as i32,
            s_w: p.stride[2] as i32,
            d_h: p.dilation[1] as i32,
            d_w: p.dilation[2] as i32,
            phases_h: t.phases_h,
            phases_w: t.phases_w,
            spread_w: t.spread_w as i32,
            row_in: t.row_in as i32,
            h_step: t.h_step as i32,
            w_step: t.w_step as i32,
            quads: t.quads,
            strips: t.strips,
            rows: t.rows as i32,
            row_count: t.row_count as i32,
            total: total as u32,
            activation: epilogue.activation.code(),
            slope: epilogue.activation.slope(),
            has_bias: epilogue.has_bias.into(),
            flip: p.flip.into(),
            // Images count from the first of the part, in both directions modulo 2^32.
            x_base: x_base.wrapping_sub((first * image) as u32),
            y_base: y_base.wrapping_sub((first * out_image) as u32),
            taps: (k_h * k_w) as i32,
        };
        steps.push(Step {
            instance: instance((k_h, k_w), t.stride, epilogue.activation.constant(), access, epilogue.has_residual),
            params: Params::new(&params),
            bindings: vec![x, Binding::read(Slot::Arg(1)), Binding::read(Slot::Arg(2)), residual, y],
            groups: total.div_ceil(if access.lanes > 0 { access.lanes.into() } else { 64 }),
            work: p.flops() / batch * count,
        });
        first += count;
    }
    steps
}
