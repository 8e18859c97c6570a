//! The cost of what a network needs besides: fully connected layers, pools, sums.

use super::conv::bias;
use super::{Cost, Options, Tally, product};
use crate::error::{Error, Result};
use crate::ops::conv::problem::split_shape;
use crate::ops::options::{PerAxis, out_extent};

const INPUT: &str = "[N, C, spatial...]";

/// A fully connected layer over the last axis.
///
/// # Shapes
/// Input `[.., in]` with any leading axes, weight `[out, in]`, output `[.., out]`.
///
/// # Errors
/// [`Error::Invalid`] for shapes that do not fit each other and for counts of more than 64 bits.
///
/// # Example
/// ```
/// use wgconv::analysis::cost;
/// let cost = cost::linear(&[1, 2048], &[1000, 2048], true)?;
/// assert_eq!((cost.parameters, cost.macs), (2_049_000, 2_048_000));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn linear(input: &[usize], weight: &[usize], has_bias: bool) -> Result<Cost> {
    const OP: &str = "cost::linear";
    let &[features, inputs] = weight else {
        return Err(Error::invalid(OP, "weight", "[out, in]", format!("{weight:?}")));
    };
    if weight.contains(&0) {
        return Err(Error::invalid(OP, "weight", "[out, in], none of them empty", format!("{weight:?}")));
    }
    let Some((_, rows)) = input.split_last().filter(|(last, _)| **last == inputs && !input.contains(&0)) else {
        return Err(Error::invalid(OP, "input", format!("[.., {inputs}], none of them empty"), format!("{input:?}")));
    };
    let parameters = product(OP, &[weight])? + bias(has_bias, features);
    Tally {
        parameters,
        macs: product(OP, &[rows, weight])?,
        input: product(OP, &[input])?,
        weight: parameters,
        output: product(OP, &[rows, &[features]])?,
        ..Tally::default()
    }
    .cost(OP)
}

/// A max pool of `R` spatial axes: a comparison for every tap but the first. The stride is the kernel unless the options give one.
///
/// # Shapes
/// Input `[N, C, spatial...]`, output `[N, C, out...]`.
///
/// # Errors
/// As [`conv`](fn@super::conv), and for padding of more than half a kernel or that differs between start and end.
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// let cost = cost::max_pool(&[1, 64, 112, 112], 3, &Options::<2>::new().stride(2).padding(1))?;
/// assert_eq!((cost.flops, cost.output_bytes), (64 * 56 * 56 * 8, 4 * 64 * 56 * 56));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn max_pool<const R: usize>(input: &[usize], kernel: impl Into<PerAxis<R>>, options: &Options<R>) -> Result<Cost> {
    const OP: &str = "cost::max_pool";
    let (windows, taps) = pool(OP, input, kernel.into(), options)?;
    Tally { other_flops: taps - windows.output, ..windows }.cost(OP)
}

/// An average pool of `R` spatial axes: the additions of a window and a multiplication. The stride is the kernel unless the options give
/// one.
///
/// # Shapes
/// Input `[N, C, spatial...]`, output `[N, C, out...]`.
///
/// # Errors
/// As [`max_pool`].
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// let cost = cost::avg_pool(&[1, 8, 5, 5], 2, &Options::<2>::new().ceil_mode(true))?;
/// assert_eq!((cost.multiplications, cost.flops), (8 * 9, 8 * 9 * 4));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn avg_pool<const R: usize>(input: &[usize], kernel: impl Into<PerAxis<R>>, options: &Options<R>) -> Result<Cost> {
    const OP: &str = "cost::avg_pool";
    let (windows, taps) = pool(OP, input, kernel.into(), options)?;
    averaging(windows, taps).cost(OP)
}

/// The average over all positions of each channel.
///
/// # Shapes
/// Input `[N, C, spatial...]`, output `[N, C, 1...]`.
///
/// # Errors
/// [`Error::Invalid`] for fewer than two axes, an empty one and counts of more than 64 bits.
///
/// # Example
/// ```
/// let cost = wgconv::analysis::cost::global_avg_pool(&[1, 2048, 7, 7])?;
/// assert_eq!((cost.flops, cost.output_bytes), (2048 * 49, 4 * 2048));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn global_avg_pool(input: &[usize]) -> Result<Cost> {
    const OP: &str = "cost::global_avg_pool";
    if input.len() < 2 || input.contains(&0) {
        return Err(Error::invalid(OP, "input", format!("{INPUT}, none of them empty"), format!("{input:?}")));
    }
    let taps = product(OP, &[input])?;
    averaging(Tally { input: taps, output: product(OP, &[&input[..2]])?, ..Tally::default() }, taps).cost(OP)
}

/// A multiplication for each window, and with the additions as many operations as taps.
fn averaging(windows: Tally, taps: u128) -> Tally {
    Tally { other_multiplications: windows.output, other_flops: taps, ..windows }
}

/// A pool's elements, and the taps of all its windows.
fn pool<const R: usize>(
    op: &'static str,
    input: &[usize],
    PerAxis(kernel): PerAxis<R>,
    options: &Options<R>,
) -> Result<(Tally, u128)> {
    options.only(op, &["ceil_mode"])?;
    let (head, extents) = split_shape::<R>(op, "input", INPUT, input)?;
    let ((stride, dilation), pads) = (options.steps(op, kernel, kernel)?, options.explicit(op)?);
    let mut output = [0; R];
    for a in 0..R {
        let (start, end) = pads[a];
        if start != end || start > kernel[a] / 2 {
            let expected = format!("alike at both sides and at most half the kernel of {}", kernel[a]);
            return Err(Error::invalid(op, "padding", expected, format!("{start} and {end}")));
        }
        let more = if options.ceil_mode { stride[a] - 1 } else { 0 };
        let sides = (start, end.saturating_add(more));
        output[a] = out_extent(op, extents[a], sides, (kernel[a], stride[a], dilation[a]))?;
        // The last window must start in the input or the padding before it.
        if options.ceil_mode && (output[a] - 1).saturating_mul(stride[a]) >= extents[a] + start {
            output[a] -= 1;
        }
    }
    let written = product(op, &[&head, &output])?;
    let taps = product(op, &[&head, &output, &kernel])?;
    Ok((Tally { input: product(op, &[input])?, output: written, ..Tally::default() }, taps))
}

/// The sum of two tensors of one shape, such as a residual that no operator takes along.
///
/// # Errors
/// [`Error::Invalid`] for an empty axis and for counts of more than 64 bits.
///
/// # Example
/// ```
/// assert_eq!(wgconv::analysis::cost::add(&[1, 64, 56, 56])?.arithmetic_intensity(), 1.0 / 12.0);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn add(shape: &[usize]) -> Result<Cost> {
    const OP: &str = "cost::add";
    if shape.contains(&0) {
        return Err(Error::invalid(OP, "input", "no empty axis", format!("{shape:?}")));
    }
    let elements = product(OP, &[shape])?;
    Tally { other_flops: elements, input: 2 * elements, output: elements, ..Tally::default() }.cost(OP)
}
