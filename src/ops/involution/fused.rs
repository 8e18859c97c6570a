//! The involution layer with its kernels made within the involution, by `involution/fused.wgsl`.

use ndarray::{Array1, ArrayViewD};

use crate::ops::Epilogue;
use crate::ops::window::{image_window, ranges, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Params, Plan, Slot, Step};
use crate::profile::{AdapterClass, Profile};

use super::choose::{STRIDES, WIDTHS};
use super::problem::{OP, Problem};

// Slots of a call's arguments.
const INPUT: usize = 0;
const REDUCED: usize = 1;
const SPAN: usize = 2;
const SPAN_BIAS: usize = 3;
const RESIDUAL: usize = 4;
/// Their names.
pub(crate) const ARGUMENTS: [&str; 5] = ["input", "reduced", "span", "span_bias", "residual"];

/// Channels of a thread. More would make each weight less often.
pub(crate) const BLOCKS: [u32; 3] = [16, 8, 4];

params! {
    /// `Params` of `involution/fused.wgsl`.
    pub struct FusedParams {
        channels: u32, cg: u32, groups: u32, reduced: u32,
        in_h: i32, in_w: i32, out_h: i32, out_w: i32,
        s_h: i32, d_h: i32, p_h: i32, p_w: i32,
        k_h: i32, images: u32, activation: u32, slope: f32,
        has_bias: u32, x_base: u32, r_base: u32, y_base: u32,
    }
}

/// The instance for a kernel width and stride along rows, channels of a thread, an activation; for aligned rows and a residual.
pub(crate) fn instance(
    (width, stride): (u32, u32),
    block: u32,
    activation: u32,
    (vec, residual): (bool, bool),
) -> Instance {
    Instance::new("involution/fused.wgsl")
        .with("KW", width)
        .with("SW", stride)
        .with("CB", block)
        .with("ACT", activation)
        .with("FLAGS", u32::from(vec) + 2 * u32::from(residual))
}

/// The weights of `span` `[groups*Kh*Kw, Cr, 1, 1]` as the shader reads them: `[groups, Kh, Cr, ceil(Kw/4)]` of vec4s over Kw.
pub(crate) fn pack(span: &ArrayViewD<'_, f32>, (groups, [kh, kw]): (usize, [usize; 2])) -> Array1<f32> {
    let reduced = span.shape()[1];
    let row = kw.next_multiple_of(4);
    Array1::from_shape_fn(groups * kh * reduced * row, |at| {
        let (k, r, tap_row) = (at % row, at / row % reduced, at / row / reduced);
        if k < kw { span[[tap_row * kw + k, r, 0, 0]] } else { 0.0 }
    })
}

/// Whether the kernel can take the layer: rows of few taps, and every tensor of an image within a binding.
pub(crate) fn fits(p: &Problem, reduced: u64, profile: &Profile) -> bool {
    let packed = u64::from(p.groups) * u64::from(p.kernel[0]) * reduced * u64::from(p.kernel[1].next_multiple_of(4));
    WIDTHS.contains(&p.kernel[1])
        && STRIDES.contains(&p.stride[1])
        && p.dilation[1] == 1
        && packed * 4 <= profile.max_binding
        && largest(p, reduced) <= window_elements(profile)
}

/// Whether it is the faster way by rule: the kernels are written and read again otherwise, which costs a GPU more than making them
/// anew for each 16 channels of a group. A software adapter reads as dearly as it multiplies.
pub(crate) fn leads(profile: &Profile) -> bool {
    profile.class != AdapterClass::Cpu
}

/// Elements of the largest tensor of an image.
fn largest(p: &Problem, reduced: u64) -> u64 {
    let channels = u64::from(p.channels);
    (channels * p.plane()).max(channels * p.out_plane()).max(reduced * p.out_plane())
}

/// The plan: as many images a dispatch as a binding holds.
pub(crate) fn plan(p: &Problem, reduced: u64, epilogue: &Epilogue, profile: &Profile) -> Plan {
    // A CPU adapter takes long to compile what is written out for many channels.
    let most = if profile.class == AdapterClass::Cpu { 4 } else { 16 };
    let block = BLOCKS.into_iter().find(|&block| block <= most.min(p.cg())).unwrap_or(BLOCKS[2]);
    let each = window_elements(profile) / largest(p, reduced);
    let step = |images: std::ops::Range<u64>| {
        let of_images = |slot, elements, write| image_window(profile, slot, (p.batch, elements), &images, write);
        let channels = u64::from(p.channels);
        let (x, x_base) = of_images(Slot::Arg(INPUT), channels * p.plane(), false);
        let (r, r_base) = of_images(Slot::Arg(REDUCED), reduced * p.out_plane(), false);
        let (y, y_base) = of_images(Slot::Out, channels * p.out_plane(), true);
        let bias = if epilogue.has_bias { Slot::Arg(SPAN_BIAS) } else { Slot::Nothing };
        let residual = epilogue.residual(RESIDUAL, y);
        let count = images.end - images.start;
        let params = FusedParams {
            channels: p.channels,
            cg: p.cg(),
            groups: p.groups,
            reduced: reduced as u32,
            in_h: p.input[0] as i32,
            in_w: p.input[1] as i32,
            out_h: p.output[0] as i32,
            out_w: p.output[1] as i32,
            s_h: p.stride[0] as i32,
            d_h: p.dilation[0] as i32,
            p_h: p.pad_start[0] as i32,
            p_w: p.pad_start[1] as i32,
            k_h: p.kernel[0] as i32,
            images: count as u32,
            activation: epilogue.activation.code(),
            slope: epilogue.activation.slope(),
            has_bias: epilogue.has_bias.into(),
            x_base,
            r_base,
            y_base,
        };
        // Where rows are aligned, so are planes, and images from the dispatch's first on.
        let vec = p.output[1].is_multiple_of(4);
        let flags = (vec, epilogue.has_residual);
        let threads = count
            * u64::from(p.groups * p.cg().div_ceil(block))
            * u64::from(p.output[0])
            * u64::from(p.output[1].div_ceil(4));
        let products = u64::from(p.groups) * p.taps() * reduced + channels * p.taps();
        Step {
            instance: instance((p.kernel[1], p.stride[1]), block, epilogue.activation.constant(), flags),
            params: Params::new(&params),
            bindings: vec![x, r, Binding::read(Slot::Arg(SPAN)), Binding::read(bias), residual, y],
            groups: threads.div_ceil(64),
            work: 2 * count * p.out_plane() * products,
        }
    };
    let steps = ranges(p.batch.into(), each).map(step).collect();
    Plan { op: OP, kernel: "fused", output: p.output_shape(), pack: None, scratch: Vec::new(), steps }.cut(profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Involution2d;
    use crate::ops::options::PerAxis;

    fn problem(options: &Involution2d, x: [usize; 4], kernel: [usize; 2]) -> Problem {
        Problem::of_input(options, &x, PerAxis(kernel)).expect("a good problem").0
    }

    #[test]
    fn rows_of_few_taps() {
        let profile = Profile::baseline();
        for width in 1..=8 {
            let p = problem(&Involution2d::new(), [1, 8, 9, 9], [2, width]);
            assert_eq!(fits(&p, 2, &profile), [3, 5, 7].contains(&width), "{width}");
        }
        for (stride, dilation, fit) in
            [([3, 1], [2, 1], true), ([1, 2], [1, 1], true), ([1, 3], [1, 1], false), ([1, 1], [1, 2], false)]
        {
            let p = problem(&Involution2d::new().stride(stride).dilation(dilation), [1, 8, 12, 12], [3, 3]);
            assert_eq!(fits(&p, 2, &profile), fit, "{stride:?} {dilation:?}");
        }
    }

    /// Windows of 956 elements, a binding of 1024.
    #[test]
    fn tensors_within_a_window() {
        let profile = Profile { max_binding: 4096, ..Profile::baseline() };
        let plain = Involution2d::new();
        let of = |options: &Involution2d, x: [usize; 4], kernel: [usize; 2], reduced: u64| {
            fits(&problem(options, x, kernel), reduced, &profile)
        };
        let two = plain.clone().groups(2);
        assert!(of(&two, [1, 2, 2, 5], [2, 3], 64) && !of(&two, [1, 2, 2, 5], [2, 3], 65), "the packed weights");
        assert!(of(&plain, [1, 2, 2, 9], [2, 5], 64) && !of(&plain, [1, 2, 2, 9], [2, 5], 65), "of eight taps a row");
        assert!(of(&plain, [1, 4, 1, 239], [1, 3], 1) && !of(&plain, [1, 4, 1, 240], [1, 3], 1), "the input");
        let padded = |start: usize| plain.clone().padding([(0, 0), (start, 120)]);
        assert!(of(&padded(118), [1, 4, 1, 3], [1, 3], 1) && !of(&padded(119), [1, 4, 1, 3], [1, 3], 1), "the output");
        assert!(of(&plain, [1, 2, 1, 241], [1, 3], 4) && !of(&plain, [1, 2, 1, 242], [1, 3], 4), "the reduced input");
    }

    #[test]
    fn leads_on_gpus() {
        let of = |class| leads(&Profile { class, ..Profile::baseline() });
        assert!(of(AdapterClass::Discrete) && of(AdapterClass::Integrated) && !of(AdapterClass::Cpu));
    }
}
