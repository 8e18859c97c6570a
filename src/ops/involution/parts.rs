//! Plans for both involution kernels, in parts where a binding is too small for the whole.

use std::ops::Range;

use crate::error::Result;
use crate::ops::Epilogue;
use crate::ops::window::{check_parts, ranges, too_large, window, window_elements};
use crate::plan::{Binding, Instance, Params, Slot, Step};
use crate::profile::Profile;

use super::problem::{OP, Problem};

crate::params::params! {
    /// `Params` of `involution/params.wgsl`.
    pub struct InvolutionParams {
        channels: u32, cg: u32, groups: u32, activation: u32,
        in_h: i32, in_w: i32, out_h: i32, out_w: i32,
        s_h: i32, s_w: i32, d_h: i32, d_w: i32,
        p_h: i32, p_w: i32, k_h: i32, k_w: i32,
        n0: u32, g0: u32, c0: u32, row0: u32,
        n_count: u32, g_count: u32, c_count: u32, row_count: u32,
        kh0: i32, kh1: i32, kw0: i32, kw1: i32,
        x_base: u32, w_base: u32, b_base: u32, y_base: u32,
        first: u32, last: u32, has_bias: u32, has_residual: u32,
        slope: f32, rounds: u32,
    }
}

/// How a kernel divides its work: its instance, and the channels, rows and neighbouring positions of a thread.
pub(crate) struct Threads {
    pub instance: Instance,
    pub channels: u32,
    pub rows: u32,
    pub positions: u32,
    /// Threads of a workgroup.
    pub workgroup: u32,
}

/// Channels of a round of `involution/subgroup.wgsl`: what its template calls U.
const CHANNELS_A_ROUND: u32 = 2;

/// A part of a problem whose bindings fit: of images, groups, channels of each group, output rows and taps.
struct Part {
    images: Range<u64>,
    groups: Range<u64>,
    channels: Range<u64>,
    rows: Range<u64>,
    taps_h: Range<u64>,
    taps_w: Range<u64>,
}

/// Whether whole rows of the kernel can be bound, for whole planes: what `involution/rows.wgsl` needs.
pub(crate) fn whole_planes(p: &Problem, profile: &Profile) -> bool {
    p.plane().max(u64::from(p.kernel[1]) * p.out_plane()) <= window_elements(profile)
}

/// The most elements that one group has in any of the three tensors.
fn group_elements(p: &Problem) -> u64 {
    (u64::from(p.cg()) * p.plane().max(p.out_plane())).max(p.taps() * p.out_plane())
}

/// Whether no part has fewer than all taps.
pub(crate) fn whole_taps(p: &Problem, profile: &Profile) -> bool {
    let all = u64::from(p.batch) * u64::from(p.groups) * group_elements(p) * 4;
    group_elements(p) <= window_elements(profile) || all.next_multiple_of(16) <= profile.max_binding
}

/// Cuts the problem so that each part's windows fit a binding.
fn parts(p: &Problem, profile: &Profile) -> Result<Vec<Part>> {
    let most = window_elements(profile);
    let (batch, groups, cg) = (u64::from(p.batch), u64::from(p.groups), u64::from(p.cg()));
    let (plane, out_plane) = (p.plane(), p.out_plane());
    let [rows, kh, kw] = [p.output[0], p.kernel[0], p.kernel[1]].map(u64::from);
    let group = group_elements(p);
    let part = |images, groups| Part { images, groups, channels: 0..cg, rows: 0..rows, taps_h: 0..kh, taps_w: 0..kw };
    if (batch * groups * group * 4).next_multiple_of(16) <= profile.max_binding {
        return Ok(vec![part(0..batch, 0..groups)]);
    }
    if groups * group <= most {
        return Ok(ranges(batch, most / (groups * group)).map(|images| part(images, 0..groups)).collect());
    }
    let single = |range: u64| range..range + 1;
    if group <= most {
        let split = |n| ranges(groups, most / group).map(move |groups| part(single(n), groups));
        return Ok((0..batch).flat_map(split).collect());
    }
    // Parts of one group: as many channels as fit, and as many rows of taps. Where not even a plane fits, rows of single taps.
    let largest = plane.max(out_plane);
    let (channels_most, rows_most, (kh_most, kw_most)) = if largest > most {
        let [in_w, out_w] = [p.input[1], p.output[1]].map(u64::from);
        if in_w.max(out_w) > most {
            let (argument, row) = if out_w > most { ("output", out_w) } else { ("input", in_w) };
            return Err(too_large(profile, OP, argument, row));
        }
        (1, (most / out_w).min((most / in_w - 1) / u64::from(p.stride[0]) + 1), (1, 1))
    } else if kw * out_plane > most {
        (most / largest, rows, (1, most / out_plane))
    } else {
        (most / largest, rows, (most / (kw * out_plane), kw))
    };
    let (row_parts, channel_parts) = (rows.div_ceil(rows_most), cg.div_ceil(channels_most));
    check_parts(OP, &[batch, groups, channel_parts, row_parts, kh.div_ceil(kh_most), kw.div_ceil(kw_most)])?;
    let mut list = Vec::new();
    for (n, g) in (0..batch).flat_map(|n| (0..groups).map(move |g| (n, g))) {
        for channels in ranges(cg, channels_most) {
            for rows in ranges(rows, rows_most) {
                for taps_h in ranges(kh, kh_most) {
                    for taps_w in ranges(kw, kw_most) {
                        let (channels, rows, taps_h) = (channels.clone(), rows.clone(), taps_h.clone());
                        list.push(Part { images: single(n), groups: single(g), channels, rows, taps_h, taps_w });
                    }
                }
            }
        }
    }
    Ok(list)
}

/// Input rows that a part reads.
fn input_rows(p: &Problem, part: &Part) -> Range<u64> {
    let extent = i64::from(p.input[0]);
    let at = |row: u64, tap: u64| {
        row as i64 * i64::from(p.stride[0]) - i64::from(p.pad_start[0]) + tap as i64 * i64::from(p.dilation[0])
    };
    let start = at(part.rows.start, part.taps_h.start).clamp(0, extent - 1);
    let end = at(part.rows.end - 1, part.taps_h.end - 1).clamp(start, extent - 1);
    start as u64..end as u64 + 1
}

/// Dispatches for the problem, of either kernel.
pub(crate) fn steps(p: &Problem, epilogue: &Epilogue, profile: &Profile, threads: &Threads) -> Result<Vec<Step>> {
    Ok(parts(p, profile)?.iter().map(|part| step(p, epilogue, profile, (part, threads))).collect())
}

fn step(p: &Problem, epilogue: &Epilogue, profile: &Profile, (part, threads): (&Part, &Threads)) -> Step {
    let (batch, channels, groups, cg) =
        (u64::from(p.batch), u64::from(p.channels), u64::from(p.groups), u64::from(p.cg()));
    let (plane, out_plane, taps) = (p.plane(), p.out_plane(), p.taps());
    let [in_w, out_w, kw] = [p.input[1], p.output[1], p.kernel[1]].map(u64::from);
    let rows_in = input_rows(p, part);
    // First and last channel, counted over all images; group and tap likewise.
    let first_channel = part.images.start * channels + part.groups.start * cg + part.channels.start;
    let last_channel = (part.images.end - 1) * channels + (part.groups.end - 1) * cg + part.channels.end - 1;
    let first_tap =
        (part.images.start * groups + part.groups.start) * taps + part.taps_h.start * kw + part.taps_w.start;
    let last_tap =
        ((part.images.end - 1) * groups + part.groups.end - 1) * taps + (part.taps_h.end - 1) * kw + part.taps_w.end
            - 1;
    let span = |first: u64, last: u64, plane: u64, row: u64, rows: &Range<u64>| {
        first * plane + rows.start * row..last * plane + rows.end * row
    };
    let x_range = span(first_channel, last_channel, plane, in_w, &rows_in);
    let w_range = span(first_tap, last_tap, out_plane, out_w, &part.rows);
    let y_range = span(first_channel, last_channel, out_plane, out_w, &part.rows);
    let b_range = part.groups.start * cg + part.channels.start..(part.groups.end - 1) * cg + part.channels.end;
    let (x, x_base) = window(profile, Slot::Arg(0), x_range, batch * channels * plane, false);
    let (w, w_base) = window(profile, Slot::Arg(1), w_range, batch * groups * taps * out_plane, false);
    let (y, y_base) = window(profile, Slot::Out, y_range, batch * channels * out_plane, true);
    let (bias, b_base) = match epilogue.has_bias {
        true => window(profile, Slot::Arg(2), b_range, channels, false),
        false => (Binding::read(Slot::Nothing), 0),
    };
    let residual = epilogue.residual(3, y);
    let count = |range: &Range<u64>| range.end - range.start;
    let [in_h, in_w, out_h, out_w] = [p.input[0], p.input[1], p.output[0], p.output[1]].map(|extent| extent as i32);
    let params = InvolutionParams {
        channels: p.channels,
        cg: p.cg(),
        groups: p.groups,
        activation: epilogue.activation.code(),
        in_h,
        in_w,
        out_h,
        out_w,
        s_h: p.stride[0] as i32,
        s_w: p.stride[1] as i32,
        d_h: p.dilation[0] as i32,
        d_w: p.dilation[1] as i32,
        p_h: p.pad_start[0] as i32,
        p_w: p.pad_start[1] as i32,
        k_h: p.kernel[0] as i32,
        k_w: p.kernel[1] as i32,
        n0: part.images.start as u32,
        g0: part.groups.start as u32,
        c0: part.channels.start as u32,
        row0: part.rows.start as u32,
        n_count: count(&part.images) as u32,
        g_count: count(&part.groups) as u32,
        c_count: count(&part.channels) as u32,
        row_count: count(&part.rows) as u32,
        kh0: part.taps_h.start as i32,
        kh1: part.taps_h.end as i32,
        kw0: part.taps_w.start as i32,
        kw1: part.taps_w.end as i32,
        x_base,
        w_base,
        b_base,
        y_base,
        first: (part.taps_h.start == 0 && part.taps_w.start == 0).into(),
        last: (part.taps_h.end == u64::from(p.kernel[0]) && part.taps_w.end == kw).into(),
        has_bias: epilogue.has_bias.into(),
        has_residual: epilogue.has_residual.into(),
        slope: epilogue.activation.slope(),
        rounds: threads.channels / CHANNELS_A_ROUND,
    };
    let blocks = count(&part.channels).div_ceil(threads.channels.into());
    let bands = count(&part.rows).div_ceil(threads.rows.into());
    let columns = u64::from(p.output[1]).div_ceil(threads.positions.into());
    let planes = count(&part.images) * count(&part.groups);
    let macs = planes * count(&part.channels) * count(&part.rows) * u64::from(p.output[1]);
    Step {
        instance: threads.instance,
        params: Params::new(&params),
        bindings: vec![x, w, bias, residual, y],
        groups: (planes * bands * blocks * columns).div_ceil(threads.workgroup.into()),
        work: 2 * macs * count(&part.taps_h) * count(&part.taps_w),
    }
}
