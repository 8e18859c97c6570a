//! The cost of convolutions: dense to pointwise, separable, transposed, deformable.

use super::{Cost, Options, Tally, product};
use crate::error::{Error, Result};
use crate::ops::conv::problem::{check_groups, split_shape};
use crate::ops::options::PerAxis;

/// A convolution of `R` spatial axes: dense, dilated, grouped, depthwise (`groups` = C_in) or pointwise (kernel 1).
///
/// # Shapes
/// Input `[N, C_in, spatial...]`, weight `[C_out, C_in/groups, kernel...]`.
///
/// # Errors
/// [`Error::Invalid`] for shapes and options that do not fit each other and for counts of more than 64 bits.
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// // A bottleneck's 3x3 layer in 32 groups (Xie et al. 2017, ResNeXt).
/// let cost = cost::conv(&[1, 128, 56, 56], &[128, 4, 3, 3], &Options::<2>::new().padding(1).groups(32))?;
/// assert_eq!((cost.parameters, cost.macs), (4_608, 14_450_688));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn conv<const R: usize>(input: &[usize], weight: &[usize], options: &Options<R>) -> Result<Cost> {
    const OP: &str = "cost::conv";
    options.only(OP, &["groups", "bias"])?;
    correlate(OP, input, ("weight", weight), options)?.0.cost(OP)
}

/// A convolution's counts and its output's shape. `argument` is what the caller calls the weight.
pub(super) fn correlate<const R: usize>(
    op: &'static str,
    input: &[usize],
    (argument, weight): (&'static str, &[usize]),
    options: &Options<R>,
) -> Result<(Tally, Vec<usize>)> {
    let ([batch, c_in], extents) = split_shape::<R>(op, "input", "[N, C_in, spatial...]", input)?;
    let ([c_out, cg], kernel) = split_shape::<R>(op, argument, "[C_out, C_in/groups, kernel...]", weight)?;
    check_groups(op, options.groups, &[("input channels", c_in), ("output channels", c_out)])?;
    if cg != c_in / options.groups {
        let expected = format!("C_in/groups = {} in axis 1", c_in / options.groups);
        return Err(Error::invalid(op, argument, expected, format!("{weight:?}")));
    }
    let output = [&[batch, c_out][..], &options.windows(op, extents, kernel)?].concat();
    let macs = product(op, &[&output, &[cg], &kernel])?;
    let parameters = product(op, &[weight])? + bias(options.bias, c_out);
    let (read, written) = (product(op, &[input])?, product(op, &[&output])?);
    Ok((Tally { parameters, macs, input: read, weight: parameters, output: written, ..Tally::default() }, output))
}

pub(super) fn bias(has: bool, channels: usize) -> u128 {
    if has { channels as u128 } else { 0 }
}

/// A depthwise convolution and a pointwise one behind it (Sifre 2014; Howard et al. 2017, MobileNet,
/// <https://arxiv.org/abs/1704.04861>). The options are the depthwise one's; with `bias` both have one.
///
/// # Shapes
/// Input `[N, C, spatial...]`, depthwise weight `[C*m, 1, kernel...]`, pointwise weight `[C_out, C*m, 1...]`.
///
/// # Errors
/// As [`conv`].
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// // 53,952 multiplications instead of 1,228,800.
/// let (x, options) = ([1, 3, 12, 12], Options::<2>::new());
/// assert_eq!(cost::separable(&x, &[3, 1, 5, 5], &[256, 3, 1, 1], &options)?.multiplications, 53_952);
/// assert_eq!(cost::conv(&x, &[256, 3, 5, 5], &options)?.multiplications, 1_228_800);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn separable<const R: usize>(
    input: &[usize],
    depthwise: &[usize],
    pointwise: &[usize],
    options: &Options<R>,
) -> Result<Cost> {
    const OP: &str = "cost::separable";
    options.only(OP, &["bias"])?;
    let ([_, channels], _) = split_shape::<R>(OP, "input", "[N, C, spatial...]", input)?;
    let (first, middle) = correlate(OP, input, ("depthwise", depthwise), &options.groups(channels))?;
    if pointwise.iter().skip(2).any(|&extent| extent != 1) {
        return Err(Error::invalid(OP, "pointwise", "[C_out, C*m, 1...]", format!("{pointwise:?}")));
    }
    let (second, _) = correlate(OP, &middle, ("pointwise", pointwise), &Options::<R>::new().bias(options.bias))?;
    Ok(first.cost(OP)? + second.cost(OP)?)
}

/// A convolution down the columns and one along the rows behind it: for a kernel of rank one, both together are the `Kh` x `Kw`
/// convolution, with `Kh + Kw` instead of `Kh * Kw` taps. With `bias` both have one.
///
/// # Shapes
/// Input `[N, C_in, H, W]`, column weight `[C_mid, C_in/groups, Kh, 1]`, row weight `[C_out, C_mid/groups, 1, Kw]`. Stride, padding
/// and dilation of the height are the column's, those of the width the row's.
///
/// # Errors
/// As [`conv`].
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// // Over 5x5 pixels: 3x5 columns and 3x3 rows of 3 taps.
/// let cost = cost::spatially_separable(&[1, 1, 5, 5], &[1, 1, 3, 1], &[1, 1, 1, 3], &Options::new())?;
/// assert_eq!(cost.multiplications, 3 * 5 * 3 + 3 * 3 * 3);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn spatially_separable(input: &[usize], column: &[usize], row: &[usize], options: &Options<2>) -> Result<Cost> {
    const OP: &str = "cost::spatially_separable";
    options.only(OP, &["groups", "bias"])?;
    let (_, extents) = split_shape::<2>(OP, "input", "[N, C, spatial...]", input)?;
    let (_, [kh, column_width]) = split_shape::<2>(OP, "column", "[C_mid, C_in/groups, Kh, 1]", column)?;
    let (_, [row_height, kw]) = split_shape::<2>(OP, "row", "[C_out, C_mid/groups, 1, Kw]", row)?;
    for (argument, across, shape) in [("column", column_width, column), ("row", row_height, row)] {
        if across != 1 {
            return Err(Error::invalid(OP, argument, "a kernel one element across", format!("{shape:?}")));
        }
    }
    let (stride, dilation) = options.steps(OP, [kh, kw], [1; 2])?;
    let pads = options.pads(OP, extents, [kh, kw])?;
    // The same options along one axis, and none along the other.
    let along = |axis: usize| {
        let only = |values: [usize; 2]| [0, 1].map(|a| if a == axis { values[a] } else { 1 });
        let sides = [0, 1].map(|a| if a == axis { pads[a] } else { (0, 0) });
        options.stride(only(stride)).dilation(only(dilation)).padding(sides)
    };
    let (first, middle) = correlate(OP, input, ("column", column), &along(0))?;
    let (second, _) = correlate(OP, &middle, ("row", row), &along(1))?;
    Ok(first.cost(OP)? + second.cost(OP)?)
}

/// A transposed convolution. Every tap of every input counts, also those that padding cuts off.
///
/// # Shapes
/// Input `[N, C_in, spatial...]`, weight `[C_in, C_out/groups, kernel...]`.
///
/// # Errors
/// As [`conv`].
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// // Doubles 8x8 pixels.
/// let cost = cost::conv_transpose(&[1, 16, 8, 8], &[16, 4, 4, 4], &Options::<2>::new().stride(2).padding(1))?;
/// assert_eq!((cost.macs, cost.output_bytes), (16 * 8 * 8 * 4 * 16, 4 * 4 * 16 * 16));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn conv_transpose<const R: usize>(input: &[usize], weight: &[usize], options: &Options<R>) -> Result<Cost> {
    const OP: &str = "cost::conv_transpose";
    options.only(OP, &["groups", "bias", "output_padding"])?;
    let ([batch, c_in], extents) = split_shape::<R>(OP, "input", "[N, C_in, spatial...]", input)?;
    let ([w_in, og], kernel) = split_shape::<R>(OP, "weight", "[C_in, C_out/groups, kernel...]", weight)?;
    check_groups(OP, options.groups, &[("input channels", c_in)])?;
    if w_in != c_in {
        return Err(Error::invalid(OP, "weight", format!("C_in = {c_in} in axis 0"), format!("{weight:?}")));
    }
    let ((stride, dilation), pads) = (options.steps(OP, kernel, [1; R])?, options.explicit(OP)?);
    let PerAxis(output_padding) = options.output_padding;
    let mut output = [0; R];
    for a in 0..R {
        let most = stride[a].max(dilation[a]);
        if output_padding[a] >= most {
            let expected = format!("less than the larger of stride and dilation, {most}");
            return Err(Error::invalid(OP, "output_padding", expected, output_padding[a]));
        }
        let full = || {
            let span =
                (extents[a] - 1).checked_mul(stride[a])?.checked_add((kernel[a] - 1).checked_mul(dilation[a])?)?;
            span.checked_add(output_padding[a])?.checked_add(1)
        };
        let (start, end) = pads[a];
        let cut = start.checked_add(end).and_then(|cut| full()?.checked_sub(cut)).filter(|&extent| extent > 0);
        output[a] = cut.ok_or_else(|| {
            let sizes = format!(
                "{} inputs with stride {}, kernel {}, dilation {}",
                extents[a], stride[a], kernel[a], dilation[a]
            );
            let got = format!("{sizes}, padding {start} and {end}");
            Error::invalid(OP, "padding", "an output neither empty nor too large", got)
        })?;
    }
    let elements = product(OP, &[weight])?;
    // At most as many as the weight has elements, which were checked.
    let c_out = og * options.groups;
    let parameters = elements + bias(options.bias, c_out);
    Tally {
        parameters,
        macs: product(OP, &[input, &[og], &kernel])?,
        input: product(OP, &[input])?,
        weight: parameters,
        output: product(OP, &[&[batch, c_out], &output])?,
        ..Tally::default()
    }
    .cost(OP)
}

/// A deformable convolution, without the layer that makes its offsets: version 1 (Dai et al. 2017,
/// <https://arxiv.org/abs/1703.06211>) or, with `mask`, version 2 (Zhu et al. 2019, <https://arxiv.org/abs/1811.11168>).
///
/// The MACs are the convolution's. Besides, each sampled point costs 2 additions for its coordinates, 4 subtractions and 4
/// multiplications for the weights of its neighbours and with a mask 4 multiplications; each sampled value, 4 multiplications and 3
/// additions. A point is shared by the channels of an offset group, a value by all output channels.
///
/// # Shapes
/// Input `[N, C_in, H, W]`, weight `[C_out, C_in/groups, Kh, Kw]`. The input's bytes are also those of the offsets
/// `[N, 2*offset_groups*Kh*Kw, Ho, Wo]` and of the mask `[N, offset_groups*Kh*Kw, Ho, Wo]`.
///
/// # Errors
/// As [`conv`], and for offset groups that do not divide the input channels.
///
/// # Example
/// ```
/// use wgconv::analysis::cost::{self, Options};
/// let (x, w, options) = ([1, 8, 10, 10], [4, 8, 3, 3], Options::new().padding(1).offset_groups(2));
/// let v1 = cost::deform_conv2d(&x, &w, &options)?;
/// assert_eq!(v1.macs, 100 * 4 * 8 * 9);
/// assert_eq!(v1.input_bytes, 4 * 100 * (8 + 2 * 2 * 9));
/// assert_eq!(v1.flops, 2 * v1.macs + 100 * 9 * (2 * 10 + 8 * 7));
/// let v2 = cost::deform_conv2d(&x, &w, &options.mask(true))?;
/// assert_eq!(v2.input_bytes - v1.input_bytes, 4 * 100 * 2 * 9);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn deform_conv2d(input: &[usize], weight: &[usize], options: &Options<2>) -> Result<Cost> {
    const OP: &str = "cost::deform_conv2d";
    options.only(OP, &["groups", "offset_groups", "mask", "bias"])?;
    let (mut tally, output) = correlate(OP, input, ("weight", weight), options)?;
    let (batch, c_in, taps) = (&input[..1], input[1], &weight[2..]);
    if options.offset_groups == 0 || c_in % options.offset_groups != 0 {
        let expected = format!("a divisor of the {c_in} input channels");
        return Err(Error::invalid(OP, "offset_groups", expected, options.offset_groups));
    }
    let points = product(OP, &[batch, &[options.offset_groups], taps, &output[2..]])?;
    let values = product(OP, &[&input[..2], taps, &output[2..]])?;
    let mask = u128::from(options.mask);
    tally.input += (2 + mask) * points;
    tally.other_multiplications = (4 + 4 * mask) * points + 4 * values;
    tally.other_flops = (10 + 4 * mask) * points + 7 * values;
    tally.cost(OP)
}
