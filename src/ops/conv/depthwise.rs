//! Plans for `conv/depthwise.wgsl`: one input channel a group, the common kernel sizes and strides.

use crate::ops::Epilogue;
use crate::ops::options::Border;
use crate::params::params;
use crate::plan::{Binding, Instance, Params, Slot, Step};
use crate::profile::Profile;

use super::problem::{Problem, volume};
use crate::ops::window::{window, window_elements};

params! {
    /// `Params` of `conv/depthwise.wgsl`.
    pub struct DepthwiseParams {
        channels: u32, multiplier: u32, in_h: i32, in_w: i32,
        out_h: i32, out_w: i32, p_h: i32, p_w: i32,
        quads: u32, strips: u32, rows: i32, total: u32,
        activation: u32, slope: f32, has_bias: u32, flip: u32,
        x_base: u32, y_base: u32,
    }
}

/// Kernel extents (height, width) that are instantiated, with strides 1 and 2.
pub(crate) const KERNELS: [(u32, u32); 6] = [(1, 3), (1, 5), (1, 7), (3, 3), (5, 5), (7, 7)];
pub(crate) const STRIDES: [u32; 2] = [1, 2];

/// Whether rows can be loaded, and stored, as vec4s.
#[derive(Clone, Copy)]
pub(crate) struct Vectors {
    pub load: bool,
    pub store: bool,
}

pub(crate) fn instance((k_h, k_w): (u32, u32), stride: u32, activation: u32, vec: Vectors, residual: bool) -> Instance {
    Instance::new("conv/depthwise.wgsl")
        .with("KH", k_h)
        .with("KW", k_w)
        .with("S", stride)
        .with("ACT", activation)
        .with("VEC", vec.load.into())
        .with("VEC_Y", vec.store.into())
        .with("RESIDUAL", residual.into())
}

pub(crate) fn fits(p: &Problem, profile: &Profile) -> bool {
    let [k_d, k_h, k_w] = p.kernel;
    let [s_d, s_h, s_w] = p.stride;
    // A stride that is never taken along H is as good as that along W.
    let strides = STRIDES.contains(&s_w) && s_d == 1 && (s_h == s_w || p.output[1] == 1);
    let most = window_elements(profile);
    p.cg() == 1
        && k_d == 1
        && p.input[0] == 1
        && p.pad_start[0] == 0
        && KERNELS.contains(&(k_h, k_w))
        && strides
        && p.dilation == [1; 3]
        && (p.border == Border::Zeros || p.unpadded())
        && u64::from(p.c_in) * volume(p.input) <= most
        && u64::from(p.c_out) * volume(p.output) <= most
        && u64::from(p.c_out) * p.taps() * 4 <= profile.max_binding
}

pub(crate) fn steps(p: &Problem, epilogue: &Epilogue, profile: &Profile) -> Vec<Step> {
    let [_, k_h, k_w] = p.kernel;
    let ([_, in_h, in_w], [_, out_h, out_w]) = (p.input, p.output);
    let stride = p.stride[2];
    let vec = Vectors {
        load: in_w.is_multiple_of(4) && p.pad_start[2] == (k_w - 1) / 2,
        store: out_w.is_multiple_of(4) && !epilogue.has_residual,
    };
    // Long strips load the rows above and below less often, short ones make more threads.
    let quads = out_w.div_ceil(4);
    let columns = u64::from(p.batch) * u64::from(p.c_out) * u64::from(quads);
    let wanted_strips = (16384 / columns.max(1)).clamp(1, u64::from(out_h.div_ceil(k_h.max(4)))) as u32;
    let rows = out_h.div_ceil(wanted_strips);
    let strips = out_h.div_ceil(rows);

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
        let residual = match epilogue.has_residual {
            true => Binding { slot: Slot::Arg(3), write: false, ..y },
            false => Binding::read(Slot::Nothing),
        };
        let total = count * u64::from(p.c_out) * u64::from(quads * strips);
        let params = DepthwiseParams {
            channels: p.c_in,
            multiplier: p.og(),
            in_h: in_h as i32,
            in_w: in_w as i32,
            out_h: out_h as i32,
            out_w: out_w as i32,
            p_h: p.pad_start[1] as i32,
            p_w: p.pad_start[2] as i32,
            quads,
            strips,
            rows: rows as i32,
            total: total as u32,
            activation: epilogue.activation.code(),
            slope: epilogue.activation.slope(),
            has_bias: epilogue.has_bias.into(),
            flip: p.flip.into(),
            // Images count from the first of the part, in both directions modulo 2^32.
            x_base: x_base.wrapping_sub((first * image) as u32),
            y_base: y_base.wrapping_sub((first * out_image) as u32),
        };
        steps.push(Step {
            instance: instance((k_h, k_w), stride, epilogue.activation.constant(), vec, epilogue.has_residual),
            params: Params::new(&params),
            bindings: vec![x, Binding::read(Slot::Arg(1)), Binding::read(Slot::Arg(2)), residual, y],
            groups: total.div_ceil(64),
            work: p.flops() / batch * count,
        });
        first += count;
    }
    steps
}
