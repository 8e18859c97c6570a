//! Plans for `conv/grouped.wgsl`: few channels a group, kernels of three, strides 1 and 2.

use crate::ops::Epilogue;
use crate::ops::window::{ranges, window, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Params, Slot, Step};
use crate::profile::Profile;

use super::problem::{Problem, volume};
use super::subgroup::software_lanes;

params! {
    /// `Params` of `conv/grouped.wgsl`.
    pub struct GroupedParams {
        cg: u32, og: u32, groups: u32, tiles: u32,
        in_h: i32, in_w: i32, out_h: i32, out_w: i32,
        p_h: i32, p_w: i32, quads: u32, strips: u32,
        threads: u32, workgroups: u32, activation: u32, slope: f32,
        has_bias: u32, flip: u32, x_base: u32, y_base: u32,
        taps: i32,
    }
}

/// Kernel extents (height, width) that are instantiated.
pub(crate) const KERNELS: [(u32, u32); 2] = [(1, 3), (3, 3)];
/// Strides that are instantiated.
pub(crate) const STRIDES: [u32; 2] = [1, 2];
/// Input channels of a group from which on the GEMM is better.
const MOST_CHANNELS: u32 = 16;
/// Output channels of a thread.
const BLOCK: u32 = 4;

/// How a thread reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    /// Rows are loaded as vec4s.
    pub load: bool,
    /// Rows are stored as vec4s.
    pub store: bool,
    /// Weights and neighbours' columns are handed round, in subgroups of so many.
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
    let flags = u32::from(access.load) + 2 * u32::from(access.store) + 4 * u32::from(residual);
    Instance::new("conv/grouped.wgsl")
        .with("KH", k_h)
        .with("KW", k_w)
        .with("S", stride)
        .with("OB", BLOCK)
        .with("ACT", activation)
        .with("FLAGS", flags)
        .with("LANES", access.lanes)
        .with("WIDE", access.wide.into())
}

/// Output rows of a thread, the shader's `R`.
fn rows(k_h: u32, stride: u32) -> u32 {
    if k_h == 1 { 1 } else { 4 / stride }
}

/// Whether the kernel can take the problem.
pub(crate) fn fits(p: &Problem, profile: &Profile) -> bool {
    let ([k_d, k_h, k_w], [_, s_h, s_w]) = (p.kernel, p.stride);
    let most = window_elements(profile);
    p.groups > 1
        && (2..=MOST_CHANNELS).contains(&p.cg())
        && p.og() > 1
        && (k_d, p.input[0], p.pad_start[0], p.output[0]) == (1, 1, 0, 1)
        && KERNELS.contains(&(k_h, k_w))
        && STRIDES.contains(&s_w)
        // A stride that is never taken along H is as good as that along W.
        && (s_h == s_w || p.output[1] == 1)
        && p.dilation == [1; 3]
        && !p.has_border()
        && u64::from(p.c_in) * volume(p.input) <= most
        && u64::from(p.c_out) * volume(p.output) <= most
        && u64::from(p.c_out) * u64::from(p.cg()) * p.taps() * 4 <= profile.max_binding
}

/// Dispatches for a problem that fits.
pub(crate) fn steps(p: &Problem, epilogue: &Epilogue, profile: &Profile) -> Vec<Step> {
    let ([_, k_h, k_w], stride) = (p.kernel, p.stride[2]);
    let ([_, in_h, in_w], [_, out_h, out_w]) = (p.input, p.output);
    let (lanes, wide) = software_lanes(profile);
    let access = Access {
        load: in_w.is_multiple_of(4) && p.pad_start[2] == (k_w - 1) / 2,
        store: out_w.is_multiple_of(4),
        lanes,
        wide,
    };
    let (quads, strips, tiles) = (out_w.div_ceil(4), out_h.div_ceil(rows(k_h, stride)), p.og().div_ceil(BLOCK));
    let (image, out_image) = (u64::from(p.c_in) * volume(p.input), u64::from(p.c_out) * volume(p.output));
    let batch = u64::from(p.batch);
    let images = ranges(batch, window_elements(profile) / image.max(out_image));
    let step = |images: std::ops::Range<u64>| {
        let count = images.end - images.start;
        let (x, x_base) = window(profile, Slot::Arg(0), images.start * image..images.end * image, batch * image, false);
        let out_range = images.start * out_image..images.end * out_image;
        let (y, y_base) = window(profile, Slot::Out, out_range, batch * out_image, true);
        let residual = epilogue.residual(3, y);
        let threads = count * u64::from(quads) * u64::from(strips);
        let workgroups = threads.div_ceil(if lanes > 0 { lanes.into() } else { 64 });
        let params = GroupedParams {
            cg: p.cg(),
            og: p.og(),
            groups: p.groups,
            tiles,
            in_h: in_h as i32,
            in_w: in_w as i32,
            out_h: out_h as i32,
            out_w: out_w as i32,
            p_h: p.pad_start[1] as i32,
            p_w: p.pad_start[2] as i32,
            quads,
            strips,
            threads: threads as u32,
            workgroups: workgroups as u32,
            activation: epilogue.activation.code(),
            slope: epilogue.activation.slope(),
            has_bias: epilogue.has_bias.into(),
            flip: p.flip.into(),
            // Images count from the first of the part, in both directions modulo 2^32.
            x_base: x_base.wrapping_sub((images.start * image) as u32),
            y_base: y_base.wrapping_sub((images.start * out_image) as u32),
            taps: p.taps() as i32,
        };
        let constant = epilogue.activation.constant();
        Step {
            instance: instance((k_h, k_w), stride, constant, access, epilogue.has_residual),
            params: Params::new(&params),
            bindings: vec![x, Binding::read(Slot::Arg(1)), Binding::read(Slot::Arg(2)), residual, y],
            groups: workgroups * u64::from(p.groups) * u64::from(tiles),
            work: p.flops() / batch * count,
        }
    };
    images.map(step).collect()
}
