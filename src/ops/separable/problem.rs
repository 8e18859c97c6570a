//! A checked separable convolution: the problems of its two parts.

use crate::error::{Error, Result};
use crate::ops::conv::problem::{Problem as Conv, split_shape};

use super::SeparableConv2d;

pub(crate) const OP: &str = "separable_conv2d";

/// The two convolutions, each checked; the second takes what the first makes.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub depthwise: Conv,
    pub pointwise: Conv,
}

impl Problem {
    pub fn new(options: &SeparableConv2d, x: &[usize], depthwise: &[usize], pointwise: &[usize]) -> Result<Self> {
        let ([_, channels], _) = split_shape::<2>(OP, "input", "[N, C, H, W]", x)?;
        let ([rows, 1], _) = split_shape::<2>(OP, "depthwise", "[C, 1, Kh, Kw]", depthwise)? else {
            return Err(Error::invalid(OP, "depthwise", "1 in axis 1", format!("{depthwise:?}")));
        };
        if rows != channels {
            return Err(Error::invalid(OP, "depthwise", format!("C = {channels} in axis 0"), format!("{depthwise:?}")));
        }
        let ([_, inputs], extents) = split_shape::<2>(OP, "pointwise", "[O, C, 1, 1]", pointwise)?;
        if inputs != channels || extents != [1, 1] {
            return Err(Error::invalid(OP, "pointwise", format!("[O, {channels}, 1, 1]"), format!("{pointwise:?}")));
        }
        let depthwise = Conv::new(&options.depthwise_part(channels), x, depthwise).map_err(named)?;
        let pointwise = Conv::new(&options.pointwise_part(), &depthwise.output_shape, pointwise).map_err(named)?;
        Ok(Self { depthwise, pointwise })
    }

    pub fn channels(&self) -> usize {
        self.depthwise.c_in as usize
    }
}

/// The error of a part as one of the whole.
pub(crate) fn named(error: Error) -> Error {
    match error {
        Error::Invalid { argument, expected, got, .. } => Error::Invalid { op: OP, argument, expected, got },
        Error::TooLarge { argument, bytes, limit_name, limit, .. } => {
            Error::TooLarge { op: OP, argument, bytes, limit_name, limit }
        }
        other => other,
    }
}
