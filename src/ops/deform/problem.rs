//! A checked problem of deformable convolution.

use crate::error::{Error, Result};
use crate::ops::conv::problem::{check_groups, split_shape};
use crate::ops::options::{PerAxis, effective, out_extent};
use crate::tensor::byte_count;

use super::DeformConv2d;

pub(crate) const OP: &str = "deform_conv2d";

/// Most rows or columns, padding counted: f32 has every integer up to here, so the grid's positions and the extents that coordinates are
/// compared with are exact.
const MAX_PADDED: usize = 1 << 24;

/// A deformable convolution whose shapes were checked. All numbers fit a shader's 32-bit signed indices.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub batch: u32,
    pub c_in: u32,
    pub c_out: u32,
    pub groups: u32,
    pub offset_groups: u32,
    /// Height and width, as in all that follow.
    pub input: [u32; 2],
    pub kernel: [u32; 2],
    pub stride: [u32; 2],
    pub dilation: [u32; 2],
    pub pad_start: [u32; 2],
    pub output: [u32; 2],
    pub output_shape: Vec<usize>,
    pub offset_shape: Vec<usize>,
    pub mask_shape: Vec<usize>,
    /// The input lies in a buffer of the caller's, which may not do for a uniform binding.
    pub input_wrapped: bool,
}

impl Problem {
    pub fn new(options: &DeformConv2d, x: &[usize], w: &[usize]) -> Result<Self> {
        let ([batch, c_in], extents) = split_shape::<2>(OP, "input", "[N, C_in, H, W]", x)?;
        let ([c_out, cg], kernel) = split_shape::<2>(OP, "weight", "[C_out, C_in/groups, Kh, Kw]", w)?;
        check_groups(OP, options.groups, &[("input channels", c_in), ("output channels", c_out)])?;
        if cg != c_in / options.groups {
            let expected = format!("C_in/groups = {} in axis 1", c_in / options.groups);
            return Err(Error::invalid(OP, "weight", expected, format!("{w:?}")));
        }
        let offset_groups = options.offset_groups;
        if offset_groups == 0 || c_in % offset_groups != 0 {
            let expected = format!("a divisor of the {c_in} input channels");
            return Err(Error::invalid(OP, "offset_groups", expected, offset_groups));
        }
        let (PerAxis(stride), PerAxis(dilation)) = (options.stride, options.dilation);
        let (mut start, mut output) = ([0; 2], [0; 2]);
        for a in 0..2 {
            for (argument, step) in [("stride", stride[a]), ("dilation", dilation[a])] {
                if step == 0 {
                    return Err(Error::invalid(OP, argument, "at least 1", 0));
                }
            }
            let pads =
                options.padding.resolve(a, (extents[a], kernel[a]), (stride[a], dilation[a])).ok_or_else(|| {
                    let got = format!("{:?} with dilation {} and stride {}", options.padding, dilation[a], stride[a]);
                    Error::invalid(OP, "padding", "a padding that does not overflow", got)
                })?;
            output[a] = out_extent(OP, extents[a], pads, (kernel[a], stride[a], dilation[a]))?;
            if extents[a] + pads.0 + pads.1 > MAX_PADDED {
                let expected = format!("at most {MAX_PADDED} rows and columns with padding, which f32 tells apart");
                let got = format!("{} padded by {} and {}", extents[a], pads.0, pads.1);
                return Err(Error::invalid(OP, "input", expected, got));
            }
            start[a] = pads.0;
        }
        let output_shape = vec![batch, c_out, output[0], output[1]];
        for (argument, shape) in [("input", x), ("weight", w), ("output", &output_shape)] {
            byte_count(OP, argument, shape, u64::MAX)?;
        }
        // Checked as factors before they are multiplied.
        let factors = [batch, 2, offset_groups, kernel[0], kernel[1], output[0], output[1]];
        byte_count(OP, "offset", &factors, u64::MAX)?;
        let fields = offset_groups * kernel[0] * kernel[1];
        let pair = |values: [usize; 2]| values.map(|value| value as u32);
        Ok(Self {
            batch: batch as u32,
            c_in: c_in as u32,
            c_out: c_out as u32,
            groups: options.groups as u32,
            offset_groups: offset_groups as u32,
            input: pair(extents),
            kernel: pair(kernel),
            stride: std::array::from_fn(|a| effective(stride[a], output[a])),
            dilation: std::array::from_fn(|a| effective(dilation[a], kernel[a])),
            pad_start: pair(start),
            output: pair(output),
            output_shape,
            offset_shape: vec![batch, 2 * fields, output[0], output[1]],
            mask_shape: vec![batch, fields, output[0], output[1]],
            input_wrapped: false,
        })
    }

    /// Input channels of a weight group.
    pub fn cg(&self) -> u32 {
        self.c_in / self.groups
    }

    /// Output channels of a weight group.
    pub fn og(&self) -> u32 {
        self.c_out / self.groups
    }

    /// Input channels of an offset group.
    pub fn cd(&self) -> u32 {
        self.c_in / self.offset_groups
    }

    pub fn taps(&self) -> u64 {
        area(self.kernel)
    }

    /// Elements of an image of the input.
    pub fn image(&self) -> u64 {
        u64::from(self.c_in) * area(self.input)
    }

    /// Elements of an image of the output.
    pub fn out_image(&self) -> u64 {
        u64::from(self.c_out) * area(self.output)
    }

    /// Elements of an image of the mask; the offset has twice as many.
    pub fn mask_image(&self) -> u64 {
        u64::from(self.offset_groups) * self.taps() * area(self.output)
    }

    pub fn weights(&self) -> u64 {
        u64::from(self.c_out) * u64::from(self.cg()) * self.taps()
    }
}

/// Product of the extents of a plane.
pub(crate) fn area([height, width]: [u32; 2]) -> u64 {
    u64::from(height) * u64::from(width)
}

/// As a shader's signed numbers.
pub(crate) fn i32s(pair: [u32; 2]) -> [i32; 2] {
    pair.map(|value| value as i32)
}
