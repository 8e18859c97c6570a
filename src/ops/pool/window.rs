//! Plans for `pool/window.wgsl`: any problem, in parts of planes, or of a plane's rows where one is too large for a binding.

use std::ops::Range;

use crate::error::Result;
use crate::ops::activation::Activation;
use crate::ops::conv::problem::volume;
use crate::ops::window::{check_parts, too_large, window, window_elements};
use crate::params::params;
use crate::plan::{Instance, Params, Plan, Slot, Step};
use crate::profile::Profile;

use super::problem::Problem;

params! {
    /// `Params` of `pool/window.wgsl`.
    pub struct WindowParams {
        in_d: i32, in_h: i32, in_w: i32, plane0: u32,
        out_d: i32, out_h: i32, out_w: i32, planes: u32,
        k_d: i32, k_h: i32, k_w: i32, line0: u32,
        s_d: i32, s_h: i32, s_w: i32, lines: u32,
        d_d: i32, d_h: i32, d_w: i32, w0: i32,
        p_d: i32, p_h: i32, p_w: i32, w_count: i32,
        x_base: u32, y_base: u32, include_pad: u32, lowest: f32,
        activation: u32, slope: f32, tiles: u32,
    }
}

/// Outputs of a thread.
pub(crate) const TILES: [u32; 2] = [1, 4];

/// What is done with a window's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Max,
    Avg { include_pad: bool },
}

pub(crate) fn instance(max: bool, tile: u32) -> Instance {
    Instance::new("pool/window.wgsl").with("MAX", max as u32).with("T", tile)
}

/// The plan of a problem.
pub(crate) fn plan(p: &Problem, reduction: Reduction, activation: Activation, profile: &Profile) -> Result<Plan> {
    let most = window_elements(profile);
    let (plane, out_plane) = (volume(p.input), volume(p.output));
    let rows = u64::from(p.output[p.first_axis]);
    let mut steps = Vec::new();
    if plane.max(out_plane) <= most {
        let whole = (p.planes * plane.max(out_plane) * 4).next_multiple_of(16) <= profile.max_binding;
        // As few parts as fit, of about the same size.
        let parts = p.planes.div_ceil(most / plane.max(out_plane));
        let each = if whole { p.planes } else { p.planes.div_ceil(parts) };
        for first in (0..p.planes).step_by(each as usize) {
            steps.push(step(p, reduction, activation, profile, first..(first + each).min(p.planes), 0..rows));
        }
    } else {
        let each = rows_that_fit(p, most).ok_or_else(|| {
            let (argument, elements) =
                if out_row(p) > most { ("output", out_row(p)) } else { ("input", in_row(p) * reach(p)) };
            too_large(profile, p.op, argument, elements)
        })?;
        check_parts(p.op, &[p.planes, rows.div_ceil(each)])?;
        for plane in 0..p.planes {
            for first in (0..rows).step_by(each as usize) {
                let part = first..(first + each).min(rows);
                steps.push(step(p, reduction, activation, profile, plane..plane + 1, part));
            }
        }
    }
    Ok(Plan { op: p.op, kernel: "window", output: p.output_shape.clone(), pack: None, scratch: Vec::new(), steps }
        .cut(profile))
}

/// Elements of one step along the outermost spatial axis.
fn in_row(p: &Problem) -> u64 {
    volume(p.input) / u64::from(p.input[p.first_axis])
}

fn out_row(p: &Problem) -> u64 {
    volume(p.output) / u64::from(p.output[p.first_axis])
}

/// Rows from the first to the last of a window.
fn reach(p: &Problem) -> u64 {
    u64::from(p.kernel[p.first_axis] - 1) * u64::from(p.dilation[p.first_axis]) + 1
}

/// Output rows whose input and output fit a window; none where not even one does.
fn rows_that_fit(p: &Problem, most: u64) -> Option<u64> {
    let a = p.first_axis;
    let by_input = if volume(p.input) <= most {
        u64::from(p.output[a])
    } else {
        (most / in_row(p)).checked_sub(reach(p))? / u64::from(p.stride[a]) + 1
    };
    Some(by_input.min(most / out_row(p))).filter(|&rows| rows > 0)
}

/// Input rows that output rows read, along the outermost spatial axis.
fn input_rows(p: &Problem, rows: &Range<u64>) -> Range<u64> {
    let a = p.first_axis;
    let (extent, pad) = (i64::from(p.input[a]), i64::from(p.padding[a]));
    let at = |row: u64, k: u32| row as i64 * i64::from(p.stride[a]) - pad + i64::from(k) * i64::from(p.dilation[a]);
    let low = at(rows.start, 0).clamp(0, extent - 1);
    low as u64..at(rows.end - 1, p.kernel[a] - 1).clamp(low, extent - 1) as u64 + 1
}

fn step(
    p: &Problem,
    reduction: Reduction,
    activation: Activation,
    profile: &Profile,
    planes: Range<u64>,
    rows: Range<u64>,
) -> Step {
    let (plane, out_plane) = (volume(p.input), volume(p.output));
    let in_rows = input_rows(p, &rows);
    let last = planes.end - 1;
    let x_range = planes.start * plane + in_rows.start * in_row(p)..last * plane + in_rows.end * in_row(p);
    let y_range = planes.start * out_plane + rows.start * out_row(p)..last * out_plane + rows.end * out_row(p);
    let (x, x_base) = window(profile, Slot::Arg(0), x_range, p.planes * plane, false);
    let (y, y_base) = window(profile, Slot::Out, y_range, p.planes * out_plane, true);
    let i32s = |axes: [u32; 3]| axes.map(|value| value as i32);
    let ([in_d, in_h, in_w], [out_d, out_h, out_w]) = (i32s(p.input), i32s(p.output));
    let ([k_d, k_h, k_w], [s_d, s_h, s_w]) = (i32s(p.kernel), i32s(p.stride));
    let ([d_d, d_h, d_w], [p_d, p_h, p_w]) = (i32s(p.dilation), i32s(p.padding));
    // Rows of the outermost axis, as lines and columns.
    let (lines, columns) = match p.first_axis {
        2 => (0..1, rows.clone()),
        axis => {
            let each = if axis == 0 { u64::from(p.output[1]) } else { 1 };
            (rows.start * each..rows.end * each, 0..u64::from(p.output[2]))
        }
    };
    let (count, lines_count, w_count) =
        (planes.end - planes.start, lines.end - lines.start, columns.end - columns.start);
    let tile = TILES[usize::from(w_count >= 3)];
    let tiles = w_count.div_ceil(tile.into());
    let params = WindowParams {
        in_d,
        in_h,
        in_w,
        plane0: planes.start as u32,
        out_d,
        out_h,
        out_w,
        planes: count as u32,
        k_d,
        k_h,
        k_w,
        line0: lines.start as u32,
        s_d,
        s_h,
        s_w,
        lines: lines_count as u32,
        d_d,
        d_h,
        d_w,
        w0: columns.start as i32,
        p_d,
        p_h,
        p_w,
        w_count: w_count as i32,
        x_base,
        y_base,
        include_pad: (reduction == Reduction::Avg { include_pad: true }).into(),
        lowest: f32::NEG_INFINITY,
        activation: activation.code(),
        slope: activation.slope(),
        tiles: tiles as u32,
    };
    let threads = count * lines_count * tiles;
    Step {
        instance: instance(reduction == Reduction::Max, tile),
        params: Params::new(&params),
        bindings: vec![x, y],
        groups: threads.div_ceil(64),
        work: (threads * u64::from(tile)).saturating_mul(volume(p.kernel)),
    }
}
