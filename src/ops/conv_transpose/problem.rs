//! A checked transposed convolution: shapes and options lifted to three spatial axes.

use crate::error::{Error, Result};
use crate::ops::conv::problem::{Axes, check_groups, gcd, lift, name, split_shape, volume};
use crate::ops::options::{MAX_EXTENT, PerAxis, effective};
use crate::tensor::byte_count;

use super::ConvTranspose;

/// A transposed convolution whose shapes were checked. All numbers fit a shader's 32-bit signed indices.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub op: &'static str,
    pub batch: u32,
    pub c_in: u32,
    pub c_out: u32,
    pub groups: u32,
    pub input: Axes,
    pub kernel: Axes,
    pub stride: Axes,
    pub dilation: Axes,
    /// What is cut off at the start of each axis; what is cut off at the end shows in `output` alone.
    pub pad_start: Axes,
    pub output: Axes,
    /// First axis of the three that the user's rank has.
    pub first_axis: usize,
    pub output_shape: Vec<usize>,
}

/// Output extent along one axis: `(in-1)*stride - start - end + dilation*(kernel-1) + output_padding + 1`.
fn out_extent(
    op: &'static str,
    (extent, kernel): (usize, usize),
    (stride, dilation, output_padding): (usize, usize, usize),
    (start, end): (usize, usize),
) -> Result<usize> {
    for (argument, step) in [("stride", stride), ("dilation", dilation)] {
        if step == 0 {
            return Err(Error::invalid(op, argument, "at least 1", 0));
        }
    }
    let most = stride.max(dilation);
    if output_padding >= most {
        let expected = format!("less than the larger of stride and dilation, {most}");
        return Err(Error::invalid(op, "output_padding", expected, output_padding));
    }
    let spans = [
        ("stride", (extent - 1).checked_mul(stride), format!("stride {stride} over {extent} inputs")),
        ("dilation", (kernel - 1).checked_mul(dilation), format!("dilation {dilation} of {kernel} taps")),
        ("output_padding", Some(output_padding), output_padding.to_string()),
    ];
    let mut full = 1;
    for (argument, span, got) in spans {
        // Both numbers are at most 2^30, so the sum cannot overflow.
        full += span.filter(|&span| span < MAX_EXTENT).unwrap_or(MAX_EXTENT);
        if full > MAX_EXTENT {
            let expected = format!("an output of at most {MAX_EXTENT} before padding is cut off");
            return Err(Error::invalid(op, argument, expected, got));
        }
    }
    let cut = start.checked_add(end).and_then(|cut| full.checked_sub(cut)).filter(|&out| out > 0);
    cut.ok_or_else(|| {
        let expected = format!("less than the {full} positions of the output in all");
        Error::invalid(op, "padding", expected, format!("{start} at the start and {end} at the end"))
    })
}

impl Problem {
    pub fn new<const R: usize>(options: &ConvTranspose<R>, x: &[usize], w: &[usize]) -> Result<Self> {
        let op = name::<R>(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]);
        let ([batch, c_in], extents) = split_shape::<R>(op, "input", "[N, C_in, spatial...]", x)?;
        let ([w_in, og], kernel) = split_shape::<R>(op, "weight", "[C_in, C_out/groups, kernel...]", w)?;
        check_groups(op, options.groups, &[("input channels", c_in)])?;
        if w_in != c_in {
            return Err(Error::invalid(op, "weight", format!("C_in = {c_in} in axis 0"), format!("{w:?}")));
        }
        for (argument, shape) in [("input", x), ("weight", w)] {
            byte_count(op, argument, shape, u64::MAX)?;
        }
        let (PerAxis(stride), PerAxis(dilation)) = (options.stride, options.dilation);
        let (PerAxis(output_padding), sides) = (options.output_padding, options.padding.0);
        // No overflow: groups divide C_in, so this is at most the weight's size, which was checked.
        let mut output_shape = vec![batch, og * options.groups];
        let mut output = [0; R];
        for axis in 0..R {
            let steps = (stride[axis], dilation[axis], output_padding[axis]);
            output[axis] = out_extent(op, (extents[axis], kernel[axis]), steps, sides[axis])?;
        }
        output_shape.extend(output);
        byte_count(op, "output", &output_shape, u64::MAX)?;
        let step = |steps: [usize; R], counts: [usize; R]| {
            let mut axes = [1; 3];
            for (i, axis) in axes[3 - R..].iter_mut().enumerate() {
                *axis = effective(steps[i], counts[i]);
            }
            axes
        };
        Ok(Self {
            op,
            batch: batch as u32,
            c_in: c_in as u32,
            c_out: output_shape[1] as u32,
            groups: options.groups as u32,
            input: lift(extents, 1),
            kernel: lift(kernel, 1),
            // Over a single input any stride means the same: its taps meet no others.
            stride: step(stride, extents),
            dilation: step(dilation, kernel),
            pad_start: lift(sides.map(|(start, _)| start), 0),
            output: lift(output, 1),
            first_axis: 3 - R,
            output_shape,
        })
    }

    /// Input channels of a group.
    pub fn cg(&self) -> u32 {
        self.c_in / self.groups
    }

    /// Output channels of a group.
    pub fn og(&self) -> u32 {
        self.c_out / self.groups
    }

    pub fn taps(&self) -> u64 {
        volume(self.kernel)
    }

    /// `stride / gcd(stride, dilation)`: taps of one output are so far apart; and `dilation / gcd`: so are the inputs under them.
    pub fn tap_steps(&self) -> [(u32, u32); 3] {
        std::array::from_fn(|a| {
            let common = gcd(self.stride[a], self.dilation[a]);
            (self.stride[a] / common, self.dilation[a] / common)
        })
    }

    /// Floating-point operations: two for each multiplication and addition.
    pub fn flops(&self) -> u64 {
        let inputs = u64::from(self.batch) * u64::from(self.c_in) * volume(self.input);
        inputs.saturating_mul(2 * u64::from(self.og()) * self.taps())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_of_known_layers() {
        // FCN's 2x and 32x up-sampling, a stride beyond the kernel, and output padding as PyTorch has it.
        assert_eq!(out_extent("t", (64, 4), (2, 1, 0), (1, 1)).unwrap(), 128);
        assert_eq!(out_extent("t", (16, 64), (32, 1, 0), (0, 0)).unwrap(), 544);
        assert_eq!(out_extent("t", (5, 2), (4, 1, 3), (1, 0)).unwrap(), 20);
        assert_eq!(out_extent("t", (1, 1), (1 << 62, 1, 0), (0, 0)).unwrap(), 1);
    }

    /// Each input meets every tap of every output channel of its group.
    #[test]
    fn operations_of_known_layers() {
        let of = |x: [usize; 4], w: [usize; 4], groups: usize| {
            Problem::new(&crate::ConvTranspose2d::new().stride(2).groups(groups), &x, &w).expect("problem").flops()
        };
        assert_eq!(of([2, 21, 16, 17], [21, 5, 4, 3], 1), 2 * (2 * 21 * 16 * 17) * (5 * 4 * 3));
        assert_eq!(of([1, 6, 4, 5], [6, 7, 2, 3], 3), 2 * (6 * 4 * 5) * (7 * 2 * 3));
    }

    #[test]
    fn mistakes_are_errors() {
        for (sizes, steps, sides, argument) in [
            ((4, 3), (0, 1, 0), (0, 0), "stride"),
            ((4, 3), (1, 0, 0), (0, 0), "dilation"),
            ((4, 3), (2, 3, 3), (0, 0), "output_padding"),
            ((4, 3), (1 << 62, 1, 0), (0, 0), "stride"),
            ((4, 3), (1, 1 << 62, 0), (0, 0), "dilation"),
            ((1, 1), (1 << 62, 1, 1 << 61), (0, 0), "output_padding"),
            ((4, 3), (1, 1, 0), (3, 3), "padding"),
            ((4, 3), (1, 1, 0), (usize::MAX, 1), "padding"),
        ] {
            let error = out_extent("t", sizes, steps, sides).unwrap_err();
            assert!(matches!(error, Error::Invalid { argument: a, .. } if a == argument), "{error}");
        }
    }
}
