//! A checked convolution problem: shapes and options lifted to three spatial axes.

use crate::error::{Error, Result};
use crate::ops::options::{Border, PerAxis, effective, out_extent};

use super::Conv;

/// Extents and steps along depth, height, width. Lower ranks have a 1 in front.
pub(crate) type Axes = [u32; 3];

/// A convolution whose shapes were checked. All numbers fit a shader's 32-bit signed indices.
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
    pub pad_start: Axes,
    pub pad_end: Axes,
    pub output: Axes,
    pub border: Border,
    pub flip: bool,
    /// Kernels with a larger error bound may be chosen.
    pub fast_math: bool,
    /// First axis of the three that the user's rank has.
    pub first_axis: usize,
    pub output_shape: Vec<usize>,
}

/// Fills the axes of the user's rank behind those that are missing.
pub(crate) fn lift<const R: usize>(values: [usize; R], missing: u32) -> Axes {
    let mut axes = [missing; 3];
    for (axis, value) in axes[3 - R..].iter_mut().zip(values) {
        *axis = value as u32;
    }
    axes
}

/// Product of extents; `u64::MAX` where it is larger, as padding that nobody has to write out can be.
pub(crate) fn volume(axes: Axes) -> u64 {
    axes.iter().fold(1, |product: u64, &extent| product.saturating_mul(extent.into()))
}

/// Greatest common divisor.
pub(crate) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The operator's name by rank, of which options have 1 to 3.
pub(crate) fn name<const R: usize>(names: [&'static str; 3]) -> &'static str {
    names[R - 1]
}

/// Checks that a shape has `R` spatial axes behind two others and no empty one; gives those two and the spatial ones.
pub(crate) fn split_shape<const R: usize>(
    op: &'static str,
    argument: &'static str,
    layout: &str,
    shape: &[usize],
) -> Result<([usize; 2], [usize; R])> {
    if shape.len() != R + 2 || shape.contains(&0) {
        return Err(Error::invalid(op, argument, format!("{layout}, none of them empty"), format!("{shape:?}")));
    }
    let mut spatial = [0; R];
    spatial.copy_from_slice(&shape[2..]);
    Ok(([shape[0], shape[1]], spatial))
}

/// Checks a shape that follows from the others.
pub(crate) fn expect_shape(
    op: &'static str,
    argument: &'static str,
    shape: Option<&[usize]>,
    expected: &[usize],
) -> Result<()> {
    match shape {
        Some(shape) if shape != expected => {
            Err(Error::invalid(op, argument, format!("shape {expected:?}"), format!("{shape:?}")))
        }
        _ => Ok(()),
    }
}

/// Checks the group count against channels.
pub(crate) fn check_groups(op: &'static str, groups: usize, channels: &[(&'static str, usize)]) -> Result<()> {
    if groups == 0 {
        return Err(Error::invalid(op, "groups", "at least 1", 0));
    }
    for (name, count) in channels {
        if count % groups != 0 {
            let expected = format!("a divisor of the {count} {name}");
            return Err(Error::invalid(op, "groups", expected, groups));
        }
    }
    Ok(())
}

impl Problem {
    pub fn new<const R: usize>(options: &Conv<R>, x: &[usize], w: &[usize]) -> Result<Self> {
        let op = name::<R>(["conv1d", "conv2d", "conv3d"]);
        let ([batch, c_in], extents) = split_shape::<R>(op, "input", "[N, C_in, spatial...]", x)?;
        let ([c_out, cg], kernel) = split_shape::<R>(op, "weight", "[C_out, C_in/groups, kernel...]", w)?;
        check_groups(op, options.groups, &[("input channels", c_in), ("output channels", c_out)])?;
        if cg != c_in / options.groups {
            let expected = format!("C_in/groups = {} in axis 1", c_in / options.groups);
            return Err(Error::invalid(op, "weight", expected, format!("{w:?}")));
        }
        let (PerAxis(stride), PerAxis(dilation)) = (options.stride, options.dilation);
        let (mut start, mut end, mut output) = ([0; R], [0; R], [0; R]);
        for axis in 0..R {
            for (argument, step) in [("stride", stride[axis]), ("dilation", dilation[axis])] {
                if step == 0 {
                    return Err(Error::invalid(op, argument, "at least 1", 0));
                }
            }
            let sizes = (extents[axis], kernel[axis]);
            let pads = options.padding.resolve(axis, sizes, (stride[axis], dilation[axis])).ok_or_else(|| {
                let got = format!("{:?} with dilation {} and stride {}", options.padding, dilation[axis], stride[axis]);
                Error::invalid(op, "padding", "a padding that does not overflow", got)
            })?;
            output[axis] = out_extent(op, extents[axis], pads, (kernel[axis], stride[axis], dilation[axis]))?;
            (start[axis], end[axis]) = pads;
            check_border(op, options.border, extents[axis], pads)?;
        }
        let mut output_shape = vec![batch, c_out];
        output_shape.extend(output);
        for (argument, shape) in [("input", x), ("weight", w), ("output", &output_shape)] {
            crate::tensor::byte_count(op, argument, shape, u64::MAX)?;
        }
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
            c_out: c_out as u32,
            groups: options.groups as u32,
            input: lift(extents, 1),
            kernel: lift(kernel, 1),
            stride: step(stride, output),
            dilation: step(dilation, kernel),
            pad_start: lift(start, 0),
            pad_end: lift(end, 0),
            output: lift(output, 1),
            border: options.border,
            flip: options.flip_kernel,
            fast_math: options.fast_math,
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

    /// Floating-point operations: two for each multiplication and addition.
    pub fn flops(&self) -> u64 {
        2 * u64::from(self.batch) * u64::from(self.c_out) * volume(self.output) * u64::from(self.cg()) * self.taps()
    }

    /// Whether taps fall on a border that is not zeros: a kernel must then look it up or have it written out around the input.
    pub fn has_border(&self) -> bool {
        self.border != Border::Zeros && (self.pad_start != [0; 3] || self.pad_end != [0; 3])
    }
}

fn check_border(op: &'static str, border: Border, extent: usize, (start, end): (usize, usize)) -> Result<()> {
    let most = match border {
        Border::Reflect => extent - 1,
        Border::Circular => extent,
        Border::Zeros | Border::Replicate => return Ok(()),
    };
    if start.max(end) > most {
        let expected = format!("at most {most} for border {border:?} over an extent of {extent}");
        return Err(Error::invalid(op, "padding", expected, start.max(end)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Problem;
    use crate::{Conv2d, Conv3d};

    #[test]
    fn operations_of_known_layers() {
        // ResNet's stem: 118 million products.
        let stem =
            Problem::new(&Conv2d::new().stride(2).padding(3), &[1, 3, 224, 224], &[64, 3, 7, 7]).expect("problem");
        assert_eq!(stem.flops(), 2 * 118_013_952);
        let grouped = Problem::new(&Conv3d::new().groups(3), &[2, 6, 3, 4, 5], &[9, 2, 1, 2, 3]).expect("problem");
        assert_eq!(grouped.flops(), 2 * (2 * 9 * 3 * 3 * 3) * (2 * 2 * 3));
    }
}
