//! Plans for `conv_transpose/direct.wgsl`: any problem, in parts where a binding is too small for it.

use std::ops::Range;

use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::conv::problem::volume;
use crate::ops::window::{check_bias, check_parts, ranges, too_large, window, window_elements};
use crate::plan::{Binding, Instance, Params, Slot, Step};
use crate::profile::Profile;

use super::problem::Problem;

crate::params::params! {
    /// `Params` of `conv_transpose/direct.wgsl`.
    pub struct TransposeParams {
        c_in: u32, c_out: u32, cg: u32, og: u32,
        in_d: i32, in_h: i32, in_w: i32, activation: u32,
        out_d: i32, out_h: i32, out_w: i32, slope: f32,
        k_d: i32, k_h: i32, k_w: i32, has_bias: u32,
        s_d: i32, s_h: i32, s_w: i32, has_residual: u32,
        d_d: i32, d_h: i32, d_w: i32, turn: i32,
        p_d: i32, p_h: i32, p_w: i32, row_threads: u32,
        k_step_d: i32, k_step_h: i32, k_step_w: i32, total: u32,
        q_d: i32, q_h: i32, q_w: i32, n0: u32,
        count_d: u32, count_h: u32, count_w: u32, g0: u32,
        g_count: u32, o0: u32, o_count: u32, c0: u32,
        c_count: u32, x_base: u32, w_base: u32, y_base: u32,
        x_low: i32, x_high: i32, first: u32, last: u32,
        i_step_d: i32, i_step_h: i32, i_step_w: i32, apart: i32,
        o_blocks: u32,
    }
}

/// Output channels a thread that the shader is instantiated for.
pub(crate) const BLOCKS: [u32; 3] = [1, 2, 4];

pub(crate) fn instance(block: u32) -> Instance {
    Instance::new("conv_transpose/direct.wgsl").with("OB", block)
}

/// A part of a problem whose bindings fit: images, groups, output channels of a group, rows of the outermost spatial axis, and input
/// channels of a group, all but the last part of which leave partial sums behind.
#[derive(Clone)]
struct Part {
    images: Range<u64>,
    groups: Range<u64>,
    channels: Range<u64>,
    rows: Range<u64>,
    inputs: Range<u64>,
}

/// Input rows that output rows read along the outermost spatial axis, at least one.
fn input_rows(p: &Problem, rows: &Range<u64>) -> Range<u64> {
    let a = p.first_axis;
    let (stride, pad) = (i64::from(p.stride[a]), i64::from(p.pad_start[a]));
    let reach = i64::from(p.kernel[a] - 1) * i64::from(p.dilation[a]);
    let last = i64::from(p.input[a]) - 1;
    // i*stride + k*dilation = q + pad, so i lies between these two.
    let low = (rows.start as i64 + pad - reach).max(0) as u64;
    let start = low.div_ceil(stride as u64).min(last as u64);
    let high = (rows.end as i64 - 1 + pad) / stride;
    start..high.clamp(start as i64, last) as u64 + 1
}

/// Cuts the problem so that each part's windows fit a binding.
fn parts(p: &Problem, profile: &Profile) -> Result<Vec<Part>> {
    let most = window_elements(profile);
    let (batch, groups) = (u64::from(p.batch), u64::from(p.groups));
    let (cg, og, taps) = (u64::from(p.cg()), u64::from(p.og()), p.taps());
    let (plane, out_plane) = (volume(p.input), volume(p.output));
    let row_count = u64::from(p.output[p.first_axis]);
    let fits = |elements: u64| (elements * 4).next_multiple_of(16) <= profile.max_binding;
    let whole = Part { images: 0..batch, groups: 0..groups, channels: 0..og, rows: 0..row_count, inputs: 0..cg };
    let (image, out_image) = (groups * cg * plane, groups * og * out_plane);
    let weights_fit = fits(groups * cg * og * taps);
    if weights_fit && fits(batch * image) && fits(batch * out_image) {
        return Ok(vec![whole]);
    }
    if weights_fit && image <= most && out_image <= most {
        let images = ranges(batch, most / image.max(out_image));
        return Ok(images.map(|images| Part { images, ..whole.clone() }).collect());
    }
    // One image at a time, one group, as many of its channels as fit.
    let (row, in_row) = (out_plane / row_count, plane / u64::from(p.input[p.first_axis]));
    if taps > most {
        return Err(too_large(profile, p.op, "weight", taps));
    }
    let channels_most = (most / taps).min((most / out_plane).max(1)).min(og);
    // The window of weights runs over all output channels of every input channel but the last.
    let inputs_most = (most / (og * taps)).min(most / plane).max(1);
    let mut rows_most = if out_plane <= most { row_count } else { most / row };
    let mut longest = 0;
    if plane > most {
        while rows_most > 0 {
            check_parts(p.op, &[row_count.div_ceil(rows_most)])?;
            let rows = ranges(row_count, rows_most).map(|rows| input_rows(p, &rows));
            longest = rows.map(|rows| rows.end - rows.start).max().unwrap_or(0) * in_row;
            if longest <= most {
                break;
            }
            rows_most /= 2;
        }
    }
    if rows_most == 0 {
        let (argument, elements) = if row > most { ("output", row) } else { ("input", longest) };
        return Err(too_large(profile, p.op, argument, elements));
    }
    let rows = row_count.div_ceil(rows_most);
    check_parts(p.op, &[batch, groups, og.div_ceil(channels_most), rows, cg.div_ceil(inputs_most)])?;
    let mut list = Vec::new();
    for image in 0..batch {
        for group in 0..groups {
            for channels in ranges(og, channels_most) {
                for rows in ranges(row_count, rows_most) {
                    for inputs in ranges(cg, inputs_most) {
                        list.push(Part {
                            images: image..image + 1,
                            groups: group..group + 1,
                            channels: channels.clone(),
                            rows: rows.clone(),
                            inputs,
                        });
                    }
                }
            }
        }
    }
    Ok(list)
}

/// Dispatches for the problem.
pub(crate) fn steps(p: &Problem, epilogue: &Epilogue, profile: &Profile) -> Result<Vec<Step>> {
    check_bias(profile, p.op, epilogue.has_bias, p.c_out)?;
    let list = parts(p, profile)?;
    let work = p.flops() / list.len() as u64;
    Ok(list.iter().map(|part| Step { work, ..step(p, epilogue, profile, part) }).collect())
}

/// Windows of the input, the weight and the output, each with the element that it starts at.
fn windows(p: &Problem, profile: &Profile, part: &Part, rows_in: &Range<u64>) -> [(Binding, u32); 3] {
    let (plane, out_plane, taps) = (volume(p.input), volume(p.output), p.taps());
    let (cg, og, c_in, c_out) = (u64::from(p.cg()), u64::from(p.og()), u64::from(p.c_in), u64::from(p.c_out));
    let in_row = plane / u64::from(p.input[p.first_axis]);
    let out_row = out_plane / u64::from(p.output[p.first_axis]);
    let (first_image, last_image) = (part.images.start, part.images.end - 1);
    let (first_group, last_group) = (part.groups.start, part.groups.end - 1);
    let first_input = first_group * cg + part.inputs.start;
    let last_input = last_group * cg + part.inputs.end - 1;
    let first_output = first_group * og + part.channels.start;
    let last_output = last_group * og + part.channels.end - 1;
    let x = (first_image * c_in + first_input) * plane + rows_in.start * in_row
        ..(last_image * c_in + last_input) * plane + rows_in.end * in_row;
    let w = (first_input * og + part.channels.start) * taps..(last_input * og + part.channels.end) * taps;
    let y = (first_image * c_out + first_output) * out_plane + part.rows.start * out_row
        ..(last_image * c_out + last_output) * out_plane + part.rows.end * out_row;
    let batch = u64::from(p.batch);
    [
        window(profile, Slot::Arg(0), x, batch * c_in * plane, false),
        window(profile, Slot::Arg(1), w, c_in * og * taps, false),
        window(profile, Slot::Out, y, batch * c_out * out_plane, true),
    ]
}

fn step(p: &Problem, epilogue: &Epilogue, profile: &Profile, part: &Part) -> Step {
    let a = p.first_axis;
    let whole = part.rows.end - part.rows.start == u64::from(p.output[a]);
    // All rows of the output need not read all rows of the input, and of a plane over the binding only those fit that are read.
    let rows_in = match whole && volume(p.input) <= window_elements(profile) {
        true => 0..u64::from(p.input[a]),
        false => input_rows(p, &part.rows),
    };
    let [(x, x_base), (w, w_base), (y, y_base)] = windows(p, profile, part, &rows_in);
    let residual = epilogue.residual(3, y);
    let count = |range: &Range<u64>| (range.end - range.start) as u32;
    let (mut q, mut counts) = ([0; 3], p.output);
    (q[a], counts[a]) = (part.rows.start as i32, count(&part.rows));
    let row_in = if a == 2 { rows_in } else { 0..u64::from(p.input[2]) };
    let o_count = count(&part.channels);
    let block = BLOCKS.into_iter().find(|&block| block >= o_count).unwrap_or(BLOCKS[2]);
    // Four turns cover a row; a multiple of the stride keeps a thread's positions on the same taps.
    let turn = counts[2].div_ceil(4).next_multiple_of(p.stride[2]);
    let row_threads = turn.min(counts[2]);
    let o_blocks = o_count.div_ceil(block);
    let threads = [count(&part.images), count(&part.groups), o_blocks, counts[0], counts[1], row_threads];
    let total: u64 = threads.into_iter().map(u64::from).product();
    let i = |axes: [u32; 3]| axes.map(|value| value as i32);
    let ([in_d, in_h, in_w], [out_d, out_h, out_w]) = (i(p.input), i(p.output));
    let ([k_d, k_h, k_w], [s_d, s_h, s_w]) = (i(p.kernel), i(p.stride));
    let ([d_d, d_h, d_w], [p_d, p_h, p_w]) = (i(p.dilation), i(p.pad_start));
    let [(k_step_d, i_step_d), (k_step_h, i_step_h), (k_step_w, i_step_w)] =
        p.tap_steps().map(|(taps, inputs)| (taps as i32, inputs as i32));
    let ([q_d, q_h, q_w], [count_d, count_h, count_w]) = (q, counts);
    let params = TransposeParams {
        c_in: p.c_in,
        c_out: p.c_out,
        cg: p.cg(),
        og: p.og(),
        in_d,
        in_h,
        in_w,
        activation: epilogue.activation.code(),
        out_d,
        out_h,
        out_w,
        slope: epilogue.activation.slope(),
        k_d,
        k_h,
        k_w,
        has_bias: epilogue.has_bias.into(),
        s_d,
        s_h,
        s_w,
        has_residual: epilogue.has_residual.into(),
        d_d,
        d_h,
        d_w,
        turn: turn as i32,
        p_d,
        p_h,
        p_w,
        row_threads,
        k_step_d,
        k_step_h,
        k_step_w,
        total: total as u32,
        q_d,
        q_h,
        q_w,
        n0: part.images.start as u32,
        count_d,
        count_h,
        count_w,
        g0: part.groups.start as u32,
        g_count: count(&part.groups),
        o0: part.channels.start as u32,
        o_count,
        c0: part.inputs.start as u32,
        c_count: count(&part.inputs),
        x_base,
        w_base,
        y_base,
        x_low: row_in.start as i32,
        x_high: row_in.end as i32 - 1,
        first: (part.inputs.start == 0).into(),
        last: (part.inputs.end == u64::from(p.cg())).into(),
        i_step_d,
        i_step_h,
        i_step_w,
        apart: (turn / p.stride[2]) as i32,
        o_blocks,
    };
    Step {
        instance: instance(block),
        params: Params::new(&params),
        bindings: vec![x, w, Binding::read(Slot::Arg(2)), residual, y],
        groups: total.div_ceil(64),
        work: 0,
    }
}
