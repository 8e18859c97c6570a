//! The cost of involution and of the layer that makes its weight.

use super::conv::correlate;
use super::layers::avg_pool;
use super::{Cost, Options, Tally, product};
use crate::error::{Error, Result};
use crate::ops::conv::problem::{check_groups, split_shape};
use crate::ops::options::PerAxis;

/// An involution (Li et al. 2021, <https://arxiv.org/abs/2103.06255>) with a given weight, which is no parameter but another input.
///
/// # Shapes
/// Input `[N, C, H, W]`, weight `[N, groups*Kh*Kw, Ho, Wo]`, output `[N, C, Ho, Wo]`.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// let cost = cost::involution2d(&[1, 64, 56, 56], 7, &Options::new().padding(3).groups(4))?;
/// assert_eq!((cost.parameters, cost.macs), (0, 64 * 56 * 56 * 49));
/// assert_eq!(cost.weight_bytes, 4 * 4 * 49 * 56 * 56);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn involution2d(input: &[usize], kernel_size: impl Into<PerAxis<2>>, options: &Options<2>) -> Result<Cost> {
    const OP: &str = "cost::involution2d";
    options.only(OP, &["groups"])?;
    involve(OP, input, kernel_size.into(), options)?.0.cost(OP)
}

/// An involution's counts and its output's extents.
fn involve(
    op: &'static str,
    input: &[usize],
    PerAxis(kernel): PerAxis<2>,
    options: &Options<2>,
) -> Result<(Tally, [usize; 2])> {
    let ([batch, channels], extents) = split_shape::<2>(op, "input", "[N, C, H, W]", input)?;
    check_groups(op, options.groups, &[("channels", channels)])?;
    let output = options.windows(op, extents, kernel)?;
    let tally = Tally {
        macs: product(op, &[&[batch, channels], &output, &kernel])?,
        input: product(op, &[input])?,
        weight: product(op, &[&[batch, options.groups], &kernel, &output])?,
        output: product(op, &[&[batch, channels], &output])?,
        ..Tally::default()
    };
    Ok((tally, output))
}

/// The layer of RedNet (Li et al. 2021): where the stride is above 1 an average pool, a pointwise convolution to `C / reduction`, one
/// to `groups*Kh*Kw`, and the involution by what they make. With `bias` both have one; the first one's is what a batch norm leaves when
/// it is folded.
///
/// # Shapes
/// Input `[N, C, H, W]`, output `[N, C, Ho, Wo]`, whose extents must be `ceil(H / stride)` and `ceil(W / stride)`.
///
/// # Errors
/// As [`conv`](fn@super::conv), and for a reduction that does not divide the channels.
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// let options = Options::new().padding(3).groups(4);
/// let cost = cost::involution_layer(&[1, 64, 56, 56], 7, 4, &options)?;
/// assert_eq!(cost.parameters, 64 * 16 + 16 * 4 * 49);
/// assert_eq!(cost.macs, 56 * 56 * (64 * 16 + 16 * 4 * 49 + 64 * 49));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn involution_layer(
    input: &[usize],
    kernel_size: impl Into<PerAxis<2>>,
    reduction: usize,
    options: &Options<2>,
) -> Result<Cost> {
    const OP: &str = "cost::involution_layer";
    options.only(OP, &["groups", "bias"])?;
    let kernel_size = kernel_size.into();
    let (involution, output) = involve(OP, input, kernel_size, options)?;
    let ([batch, channels], extents) = split_shape::<2>(OP, "input", "[N, C, H, W]", input)?;
    let (stride, _) = options.steps(OP, kernel_size.0, [1; 2])?;
    let pooled = [0, 1].map(|a| extents[a].div_ceil(stride[a]));
    if output != pooled {
        let expected = format!("one that gives the extents {pooled:?} of the pooled input");
        return Err(Error::invalid(OP, "padding", expected, format!("one that gives {output:?}")));
    }
    if reduction == 0 || channels % reduction != 0 {
        return Err(Error::invalid(OP, "reduction", format!("a divisor of the {channels} channels"), reduction));
    }
    let reduced = channels / reduction;
    // No overflow: an involution's weight has this many elements or more.
    let spanned = options.groups * kernel_size.0[0] * kernel_size.0[1];
    let pointwise = Options::<2>::new().bias(options.bias);
    let at = |channels: usize| [batch, channels, pooled[0], pooled[1]];
    let (reduce, _) = correlate(OP, &at(channels), ("reduce", &[reduced, channels, 1, 1]), &pointwise)?;
    let (span, _) = correlate(OP, &at(reduced), ("span", &[spanned, reduced, 1, 1]), &pointwise)?;
    let layers = reduce.cost(OP)? + span.cost(OP)? + involution.cost(OP)?;
    if stride == [1, 1] {
        return Ok(layers);
    }
    Ok(avg_pool(input, stride, &Options::<2>::new().ceil_mode(true))? + layers)
}
