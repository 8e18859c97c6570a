//! A checked involution problem.

use crate::error::{Error, Result};
use crate::ops::conv::problem::{check_groups, split_shape};
use crate::ops::options::{PerAxis, effective, out_extent};

use super::Involution2d;

/// The operator's name in errors and plans.
pub(crate) const OP: &str = "involution2d";

/// An involution whose shapes were checked. All numbers fit a shader's 32-bit signed indices.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub batch: u32,
    pub channels: u32,
    pub groups: u32,
    /// Height and width, here and below.
    pub input: [u32; 2],
    pub output: [u32; 2],
    pub kernel: [u32; 2],
    pub stride: [u32; 2],
    pub dilation: [u32; 2],
    pub pad_start: [u32; 2],
}

impl Problem {
    pub fn new(options: &Involution2d, x: &[usize], w: &[usize]) -> Result<Self> {
        let (problem, sizes) = Self::of_input(options, x, options.kernel_for(w)?)?;
        let [batch, groups, out_h, out_w] = sizes;
        let [kh, kw] = problem.kernel.map(|extent| extent as usize);
        let six = [batch, groups, kh, kw, out_h, out_w];
        let four = groups
            .checked_mul(kh)
            .and_then(|count| count.checked_mul(kw))
            .map(|channels| [batch, channels, out_h, out_w]);
        if w != six && four.is_none_or(|four| w != four) {
            let expected = format!("shape {six:?}, or the same with axes 1 to 3 as one");
            return Err(Error::invalid(OP, "weight", expected, format!("{w:?}")));
        }
        crate::tensor::byte_count(OP, "weight", w, u64::MAX)?;
        Ok(problem)
    }

    /// All that can be told without the weight, and batch, groups and output extents.
    pub fn of_input(options: &Involution2d, x: &[usize], PerAxis(kernel): PerAxis<2>) -> Result<(Self, [usize; 4])> {
        let ([batch, channels], extents) = split_shape::<2>(OP, "input", "[N, C, H, W]", x)?;
        check_groups(OP, options.groups, &[("channels", channels)])?;
        let (PerAxis(stride), PerAxis(dilation)) = (options.stride, options.dilation);
        let (mut pad_start, mut output) = ([0; 2], [0; 2]);
        for axis in 0..2 {
            for (argument, value) in [("kernel_size", kernel[axis]), ("stride", stride[axis])] {
                if value == 0 {
                    return Err(Error::invalid(OP, argument, "at least 1", 0));
                }
            }
            let steps = (stride[axis], dilation[axis]);
            let pads = options.padding.resolve(axis, (extents[axis], kernel[axis]), steps).ok_or_else(|| {
                let got = format!("{:?} with kernel {kernel:?} and dilation {dilation:?}", options.padding);
                Error::invalid(OP, "padding", "a padding that does not overflow", got)
            })?;
            output[axis] = out_extent(OP, extents[axis], pads, (kernel[axis], stride[axis], dilation[axis]))?;
            pad_start[axis] = pads.0 as u32;
        }
        for (argument, shape) in [("input", x), ("output", &[batch, channels, output[0], output[1]])] {
            crate::tensor::byte_count(OP, argument, shape, u64::MAX)?;
        }
        let problem = Self {
            batch: batch as u32,
            channels: channels as u32,
            groups: options.groups as u32,
            input: extents.map(|extent| extent as u32),
            output: output.map(|extent| extent as u32),
            kernel: kernel.map(|extent| extent as u32),
            stride: std::array::from_fn(|axis| effective(stride[axis], output[axis])),
            dilation: std::array::from_fn(|axis| effective(dilation[axis], kernel[axis])),
            pad_start,
        };
        Ok((problem, [batch, options.groups, output[0], output[1]]))
    }

    /// Channels of a group.
    pub fn cg(&self) -> u32 {
        self.channels / self.groups
    }

    pub fn taps(&self) -> u64 {
        u64::from(self.kernel[0]) * u64::from(self.kernel[1])
    }

    pub fn plane(&self) -> u64 {
        u64::from(self.input[0]) * u64::from(self.input[1])
    }

    pub fn out_plane(&self) -> u64 {
        u64::from(self.output[0]) * u64::from(self.output[1])
    }

    pub fn output_shape(&self) -> Vec<usize> {
        [self.batch, self.channels, self.output[0], self.output[1]].map(|extent| extent as usize).to_vec()
    }
}
