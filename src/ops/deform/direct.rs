//! Plans for `deform/direct.wgsl`: any problem, in parts where a binding is too small for it.

use std::ops::Range;

use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::window::{check_bias, check_parts, too_large, window, window_elements};
use crate::plan::{Binding, Instance, Params, Slot, Step};
use crate::profile::Profile;

use super::problem::{OP, Problem, area, i32s};
use super::{BIAS, INPUT, MASK, OFFSET, RESIDUAL, WEIGHT};

crate::params::params! {
    /// `Params` of `deform/direct.wgsl`.
    pub struct DirectParams {
        c_in: u32, c_out: u32, cg: u32, og: u32,
        in_h: i32, in_w: i32, out_h: i32, out_w: i32,
        k_h: i32, k_w: i32, s_h: i32, s_w: i32,
        d_h: i32, d_w: i32, p_h: i32, p_w: i32,
        cd: u32, offset_groups: u32, activation: u32, slope: f32,
        n0: u32, b0: u32, q0: u32, c0: u32,
        n_count: u32, b_count: u32, q_count: u32, c_count: u32,
        x_base: u32, w_base: u32, y_base: u32, offset_base: u32,
        mask_base: u32, has_bias: u32, has_residual: u32, first: u32,
        last: u32,
    }
}

/// Output channels of a thread.
pub(crate) const BLOCKS: [u32; 3] = [1, 4, 8];

pub(crate) fn instance(block: u32, mask: bool) -> Instance {
    Instance::new("deform/direct.wgsl").with("OB", block).with("MASK", mask.into())
}

/// A part of a problem whose bindings fit: images, output channels, positions, and input channels of the group, all but the last
/// part of which leave partial sums behind.
struct Part {
    images: Range<u64>,
    channels: Range<u64>,
    positions: Range<u64>,
    inputs: Range<u64>,
}

/// Splits a range into the fewest parts of at most `most`.
fn split(range: Range<u64>, most: u64) -> impl Iterator<Item = Range<u64>> {
    let count = range.end - range.start;
    let each = count.div_ceil(count.div_ceil(most.max(1)));
    (range.start..range.end).step_by(each as usize).map(move |start| start..(start + each).min(range.end))
}

/// Cuts the problem so that each part's windows fit a binding.
fn parts(p: &Problem, profile: &Profile) -> Result<Vec<Part>> {
    let most = window_elements(profile);
    let (batch, c_out) = (u64::from(p.batch), u64::from(p.c_out));
    let (cg, og, cd) = (u64::from(p.cg()), u64::from(p.og()), u64::from(p.cd()));
    let (plane, out_plane, taps) = (area(p.input), area(p.output), p.taps());
    let fits = |elements: u64| (elements * 4).next_multiple_of(16) <= profile.max_binding;
    let image = p.image().max(p.out_image()).max(2 * p.mask_image());
    let whole = |images| Part { images, channels: 0..c_out, positions: 0..out_plane, inputs: 0..cg };
    if fits(p.weights()) && fits(batch * image) {
        return Ok(vec![whole(0..batch)]);
    }
    if fits(p.weights()) && image <= most {
        return Ok(split(0..batch, most / image).map(whole).collect());
    }
    // One image at a time, one group, as many of its channels as fit. A plane is whole: an offset may point anywhere.
    let fields = 2 * taps * out_plane;
    for (argument, elements) in [("input", plane), ("weight", taps), ("offset", fields)] {
        if elements > most {
            return Err(too_large(profile, OP, argument, elements));
        }
    }
    let channels_most = (most / (cg * taps)).min(most / out_plane).max(1);
    let groups = u64::from(p.groups);
    // Parts of a group's inputs, which end where their offset groups do.
    let inputs = cg.div_ceil((most / plane).min(most / taps)) + cg.div_ceil(cd);
    let positions = out_plane.div_ceil(most);
    check_parts(OP, &[batch, groups, og.div_ceil(channels_most), positions, inputs])?;
    let mut list = Vec::new();
    for image in 0..batch {
        for group in 0..groups {
            for channels in split(group * og..(group + 1) * og, channels_most) {
                for positions in split(0..out_plane, most) {
                    let mut start = group * cg;
                    while start < (group + 1) * cg {
                        // As many channels as input and weight allow, of as many offset groups as the offset allows.
                        let by_offset = (start / cd + most / fields) * cd;
                        let end = (start + (most / plane).min(most / taps)).min(by_offset).min((group + 1) * cg);
                        let inputs = start - group * cg..end - group * cg;
                        let (channels, positions) = (channels.clone(), positions.clone());
                        list.push(Part { images: image..image + 1, channels, positions, inputs });
                        start = end;
                    }
                }
            }
        }
    }
    Ok(list)
}

/// Dispatches for the problem.
pub(crate) fn steps(p: &Problem, epilogue: &Epilogue, has_mask: bool, profile: &Profile) -> Result<Vec<Step>> {
    check_bias(profile, OP, epilogue.has_bias, p.c_out)?;
    let list = parts(p, profile)?;
    let cut = list.iter().any(|part| part.channels.end - part.channels.start < u64::from(p.c_out));
    // Where windows cut a group's channels, blocks of one channel keep any cut legal.
    let most = if cut { 1 } else { p.og() };
    let block = BLOCKS.into_iter().rev().find(|&block| block <= most).unwrap_or(1);
    Ok(list.iter().map(|part| step(p, epilogue, (has_mask, block), profile, part)).collect())
}

fn step(p: &Problem, epilogue: &Epilogue, (has_mask, block): (bool, u32), profile: &Profile, part: &Part) -> Step {
    let (plane, out_plane, taps) = (area(p.input), area(p.output), p.taps());
    let (batch, c_in, c_out) = (u64::from(p.batch), u64::from(p.c_in), u64::from(p.c_out));
    let (cg, og, cd) = (u64::from(p.cg()), u64::from(p.og()), u64::from(p.cd()));
    let (first_image, last_image) = (part.images.start, part.images.end - 1);
    let (first_group, last_group) = (part.channels.start / og, (part.channels.end - 1) / og);
    let first_input = first_group * cg + part.inputs.start;
    let end_input = last_group * cg + part.inputs.end;
    let x_range = (first_image * c_in + first_input) * plane..(last_image * c_in + end_input) * plane;
    let w_range =
        (part.channels.start * cg + part.inputs.start) * taps..((part.channels.end - 1) * cg + part.inputs.end) * taps;
    let y_range = (first_image * c_out + part.channels.start) * out_plane + part.positions.start
        ..(last_image * c_out + part.channels.end - 1) * out_plane + part.positions.end;
    // Elements of an offset group's masks.
    let (fields, groups) = (taps * out_plane, u64::from(p.offset_groups));
    let (d_first, d_end) = (first_image * groups + first_input / cd, last_image * groups + (end_input - 1) / cd + 1);
    let (x, x_base) = window(profile, Slot::Arg(INPUT), x_range, batch * p.image(), false);
    let (w, w_base) = window(profile, Slot::Arg(WEIGHT), w_range, p.weights(), false);
    let (y, y_base) = window(profile, Slot::Out, y_range, batch * p.out_image(), true);
    let offset_range = 2 * d_first * fields..2 * d_end * fields;
    let (offset, offset_base) = window(profile, Slot::Arg(OFFSET), offset_range, 2 * batch * p.mask_image(), false);
    let (mask, mask_base) = match has_mask {
        true => window(profile, Slot::Arg(MASK), d_first * fields..d_end * fields, batch * p.mask_image(), false),
        false => (Binding::read(Slot::Nothing), 0),
    };
    let residual = epilogue.residual(RESIDUAL, y);
    let blocks = og.div_ceil(block.into());
    let block_of = |channel: u64| channel / og * blocks + channel % og / u64::from(block);
    let (b0, b_end) = (block_of(part.channels.start), block_of(part.channels.end - 1) + 1);
    let (n_count, q_count) = (part.images.end - part.images.start, part.positions.end - part.positions.start);
    let ([in_h, in_w], [out_h, out_w], [k_h, k_w]) = (i32s(p.input), i32s(p.output), i32s(p.kernel));
    let ([s_h, s_w], [d_h, d_w], [p_h, p_w]) = (i32s(p.stride), i32s(p.dilation), i32s(p.pad_start));
    let params = DirectParams {
        c_in: p.c_in,
        c_out: p.c_out,
        cg: p.cg(),
        og: p.og(),
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
        cd: p.cd(),
        offset_groups: p.offset_groups,
        activation: epilogue.activation.code(),
        slope: epilogue.activation.slope(),
        n0: first_image as u32,
        b0: b0 as u32,
        q0: part.positions.start as u32,
        c0: part.inputs.start as u32,
        n_count: n_count as u32,
        b_count: (b_end - b0) as u32,
        q_count: q_count as u32,
        c_count: (part.inputs.end - part.inputs.start) as u32,
        x_base,
        w_base,
        y_base,
        offset_base,
        mask_base,
        has_bias: epilogue.has_bias.into(),
        has_residual: epilogue.has_residual.into(),
        first: (part.inputs.start == 0).into(),
        last: (part.inputs.end == cg).into(),
    };
    let threads = n_count * (b_end - b0) * q_count;
    Step {
        instance: instance(block, has_mask),
        params: Params::new(&params),
        bindings: vec![x, offset, mask, w, Binding::read(Slot::Arg(BIAS)), residual, y],
        groups: threads.div_ceil(64),
        // About ten operations a sample, two for each output channel that it serves.
        work: threads * (part.inputs.end - part.inputs.start) * taps * (10 + 2 * u64::from(block)),
    }
}
