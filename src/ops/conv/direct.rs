//! Plans for `conv/direct.wgsl`: any problem, in parts where a binding is too small for it.

use std::ops::Range;

use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::window::{check_bias, check_parts, ranges, too_large, window, window_elements};
use crate::plan::{Binding, Instance, Params, Slot, Step};
use crate::profile::Profile;

use super::problem::{Problem, volume};

crate::params::params! {
    /// `Params` of `conv/direct.wgsl`.
    pub struct DirectParams {
        c_in: u32, c_out: u32, cg: u32, og: u32,
        in_d: i32, in_h: i32, in_w: i32, border: u32,
        out_d: i32, out_h: i32, out_w: i32, flip: u32,
        k_d: i32, k_h: i32, k_w: i32, activation: u32,
        s_d: i32, s_h: i32, s_w: i32, slope: f32,
        d_d: i32, d_h: i32, d_w: i32, has_bias: u32,
        p_d: i32, p_h: i32, p_w: i32, has_residual: u32,
        n0: u32, b0: u32, q0: u32, c0: u32,
        n_count: u32, b_count: u32, q_count: u32, c_count: u32,
        x_base: u32, w_base: u32, y_base: u32, first: u32,
        last: u32,
    }
}

pub(crate) fn instance(block: u32) -> Instance {
    Instance::new("conv/direct.wgsl").with("OB", block)
}

/// A part of a problem whose bindings fit: images, output channels, rows of the outermost spatial axis, and input channels of the
/// group, all but the last part of which leave partial sums behind.
struct Part {
    images: Range<u64>,
    channels: Range<u64>,
    rows: Range<u64>,
    inputs: Range<u64>,
}

/// Input rows that output rows read, along the outermost spatial axis.
fn input_rows(p: &Problem, rows: &Range<u64>) -> Range<u64> {
    let a = p.first_axis;
    let (extent, pad) = (i64::from(p.input[a]), i64::from(p.pad_start[a]));
    let at = |row: u64, k: u32| row as i64 * i64::from(p.stride[a]) - pad + i64::from(k) * i64::from(p.dilation[a]);
    let (low, high) = (at(rows.start, 0), at(rows.end - 1, p.kernel[a] - 1));
    let beyond = low < 0 || high >= extent;
    use crate::ops::options::Border;
    match p.border {
        Border::Circular if beyond => 0..extent as u64,
        // A mirrored row lies as far inside as the tap is outside.
        Border::Reflect if beyond => {
            let start = low.max(0).min(2 * (extent - 1) - high.max(extent - 1)).max(0);
            let end = high.min(extent - 1).max(-low.min(0)).min(extent - 1);
            start as u64..end as u64 + 1
        }
        _ => {
            let start = low.clamp(0, extent - 1);
            start as u64..high.clamp(start, extent - 1) as u64 + 1
        }
    }
}

/// Cuts the problem so that each part's windows fit a binding.
fn parts(p: &Problem, profile: &Profile) -> Result<Vec<Part>> {
    let most = window_elements(profile);
    let (batch, c_out, cg, og) = (p.batch.into(), u64::from(p.c_out), u64::from(p.cg()), u64::from(p.og()));
    let (plane, out_plane, taps) = (volume(p.input), volume(p.output), p.taps());
    let fits = |elements: u64| (elements * 4).next_multiple_of(16) <= profile.max_binding;
    let (image, out_image) = (u64::from(p.c_in) * plane, c_out * out_plane);
    let weights_fit = fits(c_out * cg * taps);
    if weights_fit && fits(batch * image) && fits(batch * out_image) {
        return Ok(vec![Part {
            images: 0..batch,
            channels: 0..c_out,
            rows: 0..p.output[p.first_axis].into(),
            inputs: 0..cg,
        }]);
    }
    if weights_fit && image <= most && out_image <= most {
        let images = ranges(batch, most / image.max(out_image));
        let whole = |images| Part { images, channels: 0..c_out, rows: 0..p.output[p.first_axis].into(), inputs: 0..cg };
        return Ok(images.map(whole).collect());
    }
    // One image at a time, one group, as many of its channels as fit.
    let row_count = u64::from(p.output[p.first_axis]);
    let row = out_plane / row_count;
    let in_row = plane / u64::from(p.input[p.first_axis]);
    let inputs_most = (most / taps).min((most / plane).max(1));
    if inputs_most == 0 {
        return Err(too_large(profile, p.op, "weight", taps));
    }
    // The window of weights runs over whole rows of input channels.
    let by_weights = most / (cg * taps);
    let channels_most = by_weights.min(most / out_plane).max(1).min(og);
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
    let (groups, rows) = (u64::from(p.groups), row_count.div_ceil(rows_most));
    check_parts(p.op, &[batch, groups, og.div_ceil(channels_most), rows, cg.div_ceil(inputs_most)])?;
    let mut list = Vec::new();
    for image in 0..batch {
        for group in 0..groups {
            for channels in ranges(og, channels_most) {
                for rows in ranges(row_count, rows_most) {
                    for inputs in ranges(cg, inputs_most) {
                        let channels = group * og + channels.start..group * og + channels.end;
                        list.push(Part { images: image..image + 1, channels, rows: rows.clone(), inputs });
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
    let split_channels = list.iter().any(|part| part.channels.end - part.channels.start < u64::from(p.c_out));
    // Where windows cut a group's channels, blocks of one channel keep any cut legal.
    let block = if split_channels || p.og() < 4 { 1 } else { 4 };
    list.iter().map(|part| Ok(step(p, epilogue, profile, part, block))).collect()
}

fn step(p: &Problem, epilogue: &Epilogue, profile: &Profile, part: &Part, block: u32) -> Step {
    let (plane, out_plane, taps) = (volume(p.input), volume(p.output), p.taps());
    let (cg, og) = (u64::from(p.cg()), u64::from(p.og()));
    let in_row = plane / u64::from(p.input[p.first_axis]);
    let out_row = out_plane / u64::from(p.output[p.first_axis]);
    let (first_image, last_image) = (part.images.start, part.images.end - 1);
    let (first_group, last_group) = (part.channels.start / og, (part.channels.end - 1) / og);
    let whole = part.rows.end - part.rows.start == u64::from(p.output[p.first_axis]);
    // All rows of the output need not read all rows of the input, and of a plane over the binding only those fit that are read.
    let rows_in = if whole && plane <= window_elements(profile) {
        0..u64::from(p.input[p.first_axis])
    } else {
        input_rows(p, &part.rows)
    };
    let c_in = u64::from(p.c_in);
    let x_range = (first_image * c_in + first_group * cg + part.inputs.start) * plane + rows_in.start * in_row
        ..(last_image * c_in + last_group * cg + part.inputs.end - 1) * plane + rows_in.end * in_row;
    let w_range =
        (part.channels.start * cg + part.inputs.start) * taps..((part.channels.end - 1) * cg + part.inputs.end) * taps;
    let c_out = u64::from(p.c_out);
    let y_range = (first_image * c_out + part.channels.start) * out_plane + part.rows.start * out_row
        ..(last_image * c_out + part.channels.end - 1) * out_plane + part.rows.end * out_row;
    let batch = u64::from(p.batch);
    let (x, x_base) = window(profile, Slot::Arg(0), x_range, batch * c_in * plane, false);
    let (w, w_base) = window(profile, Slot::Arg(1), w_range, c_out * cg * taps, false);
    let (y, y_base) = window(profile, Slot::Out, y_range, batch * c_out * out_plane, true);
    let residual = epilogue.residual(3, y);
    let blocks = og.div_ceil(block.into());
    let block_of = |channel: u64| channel / og * blocks + channel % og / u64::from(block);
    let (b0, b1) = (block_of(part.channels.start), block_of(part.channels.end - 1) + 1);
    let (q0, q_count) = (part.rows.start * out_row, (part.rows.end - part.rows.start) * out_row);
    let n_count = part.images.end - part.images.start;
    let i = |axes: [u32; 3]| axes.map(|value| value as i32);
    let ([in_d, in_h, in_w], [out_d, out_h, out_w]) = (i(p.input), i(p.output));
    let ([k_d, k_h, k_w], [s_d, s_h, s_w]) = (i(p.kernel), i(p.stride));
    let ([d_d, d_h, d_w], [p_d, p_h, p_w]) = (i(p.dilation), i(p.pad_start));
    let params = DirectParams {
        c_in: p.c_in,
        c_out: p.c_out,
        cg: p.cg(),
        og: p.og(),
        in_d,
        in_h,
        in_w,
        border: p.border.code(),
        out_d,
        out_h,
        out_w,
        flip: p.flip.into(),
        k_d,
        k_h,
        k_w,
        activation: epilogue.activation.code(),
        s_d,
        s_h,
        s_w,
        slope: epilogue.activation.slope(),
        d_d,
        d_h,
        d_w,
        has_bias: epilogue.has_bias.into(),
        p_d,
        p_h,
        p_w,
        has_residual: epilogue.has_residual.into(),
        n0: first_image as u32,
        b0: b0 as u32,
        q0: q0 as u32,
        c0: part.inputs.start as u32,
        n_count: n_count as u32,
        b_count: (b1 - b0) as u32,
        q_count: q_count as u32,
        c_count: (part.inputs.end - part.inputs.start) as u32,
        x_base,
        w_base,
        y_base,
        first: (part.inputs.start == 0).into(),
        last: (part.inputs.end == cg).into(),
    };
    let threads = n_count * (b1 - b0) * q_count;
    Step {
        instance: instance(block),
        params: Params::new(&params),
        bindings: vec![x, w, Binding::read(Slot::Arg(2)), residual, y],
        groups: threads.div_ceil(64),
        work: p.flops() / u64::from(p.batch) * n_count,
    }
}
