//! A checked pooling problem: shapes and options lifted to three spatial axes.

use crate::error::{Error, Result};
use crate::ops::conv::problem::{Axes, lift, split_shape};
use crate::ops::options::{MAX_EXTENT, PerAxis, effective};

/// Window options that both pools share.
#[derive(Clone, Debug)]
pub(crate) struct Window<const R: usize> {
    pub kernel: PerAxis<R>,
    /// The kernel where it is not given.
    pub stride: Option<PerAxis<R>>,
    pub padding: PerAxis<R>,
    pub dilation: PerAxis<R>,
    pub ceil_mode: bool,
}

impl<const R: usize> Window<R> {
    pub fn new(kernel: PerAxis<R>) -> Self {
        Self { kernel, stride: None, padding: 0.into(), dilation: 1.into(), ceil_mode: false }
    }
}

/// A pooling whose shapes were checked. All numbers fit a shader's 32-bit signed indices.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub op: &'static str,
    /// Images times channels.
    pub planes: u64,
    pub input: Axes,
    pub output: Axes,
    /// Taps, those left out that no window has in the input or its padding.
    pub kernel: Axes,
    pub stride: Axes,
    pub dilation: Axes,
    pub padding: Axes,
    /// First axis of the three that the user's rank has.
    pub first_axis: usize,
    pub output_shape: Vec<usize>,
}

impl Problem {
    pub fn new<const R: usize>(op: &'static str, window: &Window<R>, x: &[usize]) -> Result<Self> {
        let ([batch, channels], extents) = split_shape::<R>(op, "input", "[N, C, spatial...]", x)?;
        let (PerAxis(kernel), PerAxis(padding)) = (window.kernel, window.padding);
        let (PerAxis(stride), PerAxis(dilation)) = (window.stride.unwrap_or(window.kernel), window.dilation);
        let mut output = [0; R];
        for axis in 0..R {
            let sizes = (kernel[axis], stride[axis], dilation[axis]);
            output[axis] = windows(op, extents[axis], padding[axis], sizes, window.ceil_mode)?;
        }
        let mut output_shape = vec![batch, channels];
        output_shape.extend(output);
        crate::tensor::byte_count(op, "input", x, u64::MAX)?;
        crate::tensor::byte_count(op, "output", &output_shape, u64::MAX)?;
        let (mut taps, mut steps, mut tap_steps) = ([1; R], [1; R], [1; R]);
        for axis in 0..R {
            let padded = extents[axis] + 2 * padding[axis];
            tap_steps[axis] = dilation[axis].min(padded);
            taps[axis] = kernel[axis].min((padded - 1) / tap_steps[axis] + 1);
            steps[axis] = effective(stride[axis], output[axis]) as usize;
        }
        Ok(Self {
            op,
            planes: (batch * channels) as u64,
            input: lift(extents, 1),
            output: lift(output, 1),
            kernel: lift(taps, 1),
            stride: lift(steps, 1),
            dilation: lift(tap_steps, 1),
            padding: lift(padding, 0),
            first_axis: 3 - R,
            output_shape,
        })
    }
}

/// The number of windows along one axis, PyTorch's `pooling_output_shape`: in ceil mode rounded up, as long as the last window
/// starts in the input or the padding before it.
fn windows(
    op: &'static str,
    extent: usize,
    padding: usize,
    (kernel, stride, dilation): (usize, usize, usize),
    ceil_mode: bool,
) -> Result<usize> {
    for (argument, value) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
        if value == 0 {
            return Err(Error::invalid(op, argument, "at least 1", 0));
        }
    }
    if padding > kernel / 2 {
        return Err(Error::invalid(op, "padding", format!("at most half the kernel of {kernel}"), padding));
    }
    let padded = padding.checked_mul(2).and_then(|both| both.checked_add(extent)).filter(|&sum| sum <= MAX_EXTENT);
    let Some(padded) = padded else {
        let got = format!("{extent} padded by {padding} on both sides");
        return Err(Error::invalid(op, "padding", format!("a padded extent of at most {MAX_EXTENT}"), got));
    };
    let reach = dilation.checked_mul(kernel - 1).and_then(|reach| reach.checked_add(1));
    // In ceil mode the one window may be longer than the input, by less than the stride.
    let longest = if ceil_mode { padded.saturating_add(stride - 1) } else { padded };
    let Some(reach) = reach.filter(|&reach| reach <= longest) else {
        let got = format!("kernel {kernel} with dilation {dilation} over {extent} padded by {padding}");
        return Err(Error::invalid(op, "kernel", "a window no longer than the padded input", got));
    };
    let room = padded.saturating_sub(reach);
    let more = if ceil_mode { room.div_ceil(stride) } else { room / stride };
    let dropped = ceil_mode && more.saturating_mul(stride) >= extent + padding;
    Ok(if dropped { more } else { more + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In ceil mode a window may be longer than the input: taps that no window has there are left out, and their step is no longer either.
    #[test]
    fn taps_beyond_the_input_are_left_out() {
        let of = |kernel: usize, dilation: usize, stride: usize, padding: usize| {
            let mut window = Window::new(PerAxis([kernel]));
            (window.stride, window.dilation) = (Some(PerAxis([stride])), PerAxis([dilation]));
            (window.padding, window.ceil_mode) = (PerAxis([padding]), true);
            let p = Problem::new("t", &window, &[2, 3, 3]).expect("problem");
            assert_eq!((p.planes, p.output[2], p.first_axis), (6, 1, 2));
            (p.kernel[2], p.dilation[2], p.stride[2], p.padding[2])
        };
        assert_eq!(of(3, 1, 9, 0), (3, 1, 1, 0));
        assert_eq!(of(5, 1, 3, 0), (3, 1, 1, 0));
        assert_eq!(of(3, 2, 3, 0), (2, 2, 1, 0));
        assert_eq!(of(2, 9, 9, 0), (1, 3, 1, 0));
        assert_eq!(of(6, 1, 9, 1), (5, 1, 1, 1));
    }

    /// PyTorch's numbers.
    #[test]
    fn windows_of_known_layers() {
        let of = |extent, padding, sizes, ceil| windows("t", extent, padding, sizes, ceil).ok();
        // Kernel, stride, dilation.
        assert_eq!(of(112, 1, (3, 2, 1), false), Some(56));
        assert_eq!(of(112, 0, (3, 2, 1), false), Some(55));
        assert_eq!(of(112, 0, (3, 2, 1), true), Some(56));
        assert_eq!(of(5, 1, (2, 2, 1), true), Some(3), "the fourth would start in the padding at the end");
        assert_eq!(of(6, 1, (2, 2, 1), true), Some(4));
        assert_eq!(of(9, 0, (3, 1, 4), false), Some(1));
        assert_eq!(of(8, 0, (3, 1, 4), false), None);
        assert_eq!(of(8, 0, (3, 2, 4), true), Some(1), "longer than the input by less than the stride");
        assert_eq!(of(7, 0, (3, 2, 4), true), None);
        assert_eq!(of(4, 2, (3, 1, 1), false), None, "padding of more than half the kernel");
        assert_eq!(of(4, 1, (3, 1, 1), false), Some(4));
        assert_eq!(of(MAX_EXTENT - 2, 1, (2, MAX_EXTENT, 1), false), Some(1));
        assert_eq!(of(MAX_EXTENT - 1, 1, (2, MAX_EXTENT, 1), false), None);
        for sizes in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            assert_eq!(of(9, 0, sizes, false), None, "{sizes:?}");
        }
    }
}
