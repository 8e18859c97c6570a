//! Parameters, operations and bytes of operators and blocks, from shapes alone.
//!
//! What is counted:
//! - A MAC is a multiplication of an input with a weight and the addition to a sum. Taps in padding count, and a sum begins with the
//!   bias or with zero: a dense 3x3 layer has `N * C_out * H_out * W_out * C_in/groups * 9`.
//! - FLOPs are two for each MAC, and one for each other addition, multiplication or comparison (interpolation, pooling).
//! - Bytes are those that an operator must read and write at least, once each, with 4 bytes an element. What one operator of a block
//!   hands to the next is written and read.
//! - Activations and batch norm, which run within an operator, are not counted.
//!
//! # Example
//! The block of MobileNet (Howard et al. 2017, <https://arxiv.org/abs/1704.04861>) against the dense layer it stands for:
//! ```
//! use wgconv::analysis::cost::{self, Options};
//! let x = [1, 64, 56, 56];
//! let options = Options::<2>::new().padding(1);
//! let dense = cost::conv(&x, &[128, 64, 3, 3], &options)?;
//! let block = cost::conv(&x, &[64, 1, 3, 3], &options.groups(64))? + cost::conv(&x, &[128, 64, 1, 1], &Options::<2>::new())?;
//! assert_eq!((dense.parameters, block.parameters), (73_728, 8_768));
//! assert!(dense.macs > 8 * block.macs);
//! assert!(dense.arithmetic_intensity() > block.arithmetic_intensity());
//! # Ok::<(), wgconv::Error>(())
//! ```

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use crate::error::{Error, Result};
use crate::ops::options::{Padding, PerAxis, out_extent};

mod blocks;
mod conv;
mod involution;
mod layers;

pub use blocks::{
    aspp, bottleneck, deform_layer, duc, hdc_group, inception_7x7, inverted_residual, local_attention,
    mobilenet_v1_block, pointnet, rfb, wavenet,
};
pub use conv::{conv, conv_transpose, deform_conv2d, separable, spatially_separable};
pub use involution::{involution_layer, involution2d};
pub use layers::{add, avg_pool, global_avg_pool, linear, max_pool};

/// What an operator or a block costs.
///
/// Costs add up with `+` and `sum()`. A sum that does not fit 64 bits stays at `u64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cost {
    /// Learned numbers, biases counted.
    pub parameters: u64,
    /// Multiplications, those of interpolation and averaging counted.
    pub multiplications: u64,
    /// Multiply-accumulates of inputs with weights.
    pub macs: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of the input and, for deformable convolution, of offsets and mask.
    pub input_bytes: u64,
    /// Bytes of weight and bias. An involution's weight counts, though it is no parameter.
    pub weight_bytes: u64,
    /// Bytes of the output.
    pub output_bytes: u64,
}

impl Cost {
    /// Bytes read and written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.input_bytes.saturating_add(self.weight_bytes).saturating_add(self.output_bytes)
    }

    /// FLOPs a byte (Williams et al. 2009, Roofline); 0 where no byte moves.
    #[must_use]
    pub fn arithmetic_intensity(&self) -> f64 {
        self.flops as f64 / self.bytes().max(1) as f64
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            parameters: self.parameters.saturating_add(other.parameters),
            multiplications: self.multiplications.saturating_add(other.multiplications),
            macs: self.macs.saturating_add(other.macs),
            flops: self.flops.saturating_add(other.flops),
            input_bytes: self.input_bytes.saturating_add(other.input_bytes),
            weight_bytes: self.weight_bytes.saturating_add(other.weight_bytes),
            output_bytes: self.output_bytes.saturating_add(other.output_bytes),
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parameters, multiplications, macs, flops, .. } = self;
        write!(f, "{parameters} parameters, {multiplications} multiplications, {macs} MACs, {flops} FLOPs, ")?;
        write!(f, "{} bytes, {:.2} FLOPs a byte", self.bytes(), self.arithmetic_intensity())
    }
}

/// Options of the operators, with PyTorch's names and defaults. One that an operator does not have must keep its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Options<const R: usize> {
    stride: Option<PerAxis<R>>,
    padding: Padding<R>,
    output_padding: PerAxis<R>,
    dilation: PerAxis<R>,
    groups: usize,
    offset_groups: usize,
    mask: bool,
    bias: bool,
    ceil_mode: bool,
}

impl<const R: usize> Default for Options<R> {
    fn default() -> Self {
        Self {
            stride: None,
            padding: Padding::Valid,
            output_padding: 0.into(),
            dilation: 1.into(),
            groups: 1,
            offset_groups: 1,
            mask: false,
            bias: false,
            ceil_mode: false,
        }
    }
}

impl<const R: usize> Options<R> {
    /// Stride 1 (of a pool: its kernel), no padding, dilation 1, one group, no bias, no mask.
    pub fn new() -> Self {
        Self::default()
    }

    /// Elements between neighbouring windows.
    pub fn stride(mut self, stride: impl Into<PerAxis<R>>) -> Self {
        self.stride = Some(stride.into());
        self
    }

    /// A number, one for each axis, (start, end) for each axis, or a named rule. Transposed convolutions and pools take no rule.
    pub fn padding(mut self, padding: impl Into<Padding<R>>) -> Self {
        self.padding = padding.into();
        self
    }

    /// What a transposed convolution appends to its output.
    pub fn output_padding(mut self, output_padding: impl Into<PerAxis<R>>) -> Self {
        self.output_padding = output_padding.into();
        self
    }

    /// Elements between neighbouring taps.
    pub fn dilation(mut self, dilation: impl Into<PerAxis<R>>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Number of groups; as many as input channels make a convolution depthwise.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Groups of channels that share the offsets of a deformable convolution.
    pub fn offset_groups(mut self, offset_groups: usize) -> Self {
        self.offset_groups = offset_groups;
        self
    }

    /// Whether a deformable convolution has a mask: version 2.
    pub fn mask(mut self, mask: bool) -> Self {
        self.mask = mask;
        self
    }

    /// Whether there is a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Whether a pool rounds the number of its windows up.
    pub fn ceil_mode(mut self, ceil_mode: bool) -> Self {
        self.ceil_mode = ceil_mode;
        self
    }

    /// Refuses options that the operator does not have: they would be ignored silently.
    fn only(&self, op: &'static str, has: &[&str]) -> Result<()> {
        let set = [
            ("groups", self.groups != 1),
            ("offset_groups", self.offset_groups != 1),
            ("mask", self.mask),
            ("bias", self.bias),
            ("ceil_mode", self.ceil_mode),
            ("output_padding", self.output_padding != 0.into()),
        ];
        match set.into_iter().find(|(name, set)| *set && !has.contains(name)) {
            Some((name, _)) => {
                Err(Error::invalid(op, name, "its default, since the operator has no such option", "another"))
            }
            None => Ok(()),
        }
    }

    /// Stride and dilation of each axis, and `stride` where the options have none. Neither they nor the kernel are 0.
    fn steps(&self, op: &'static str, kernel: [usize; R], stride: [usize; R]) -> Result<([usize; R], [usize; R])> {
        let (PerAxis(stride), PerAxis(dilation)) = (self.stride.unwrap_or(PerAxis(stride)), self.dilation);
        for (argument, values) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            if values.contains(&0) {
                return Err(Error::invalid(op, argument, "at least 1 along every axis", format!("{values:?}")));
            }
        }
        Ok((stride, dilation))
    }

    /// Padding (start, end) of each axis of a convolution.
    fn pads(&self, op: &'static str, extents: [usize; R], kernel: [usize; R]) -> Result<[(usize, usize); R]> {
        let (stride, dilation) = self.steps(op, kernel, [1; R])?;
        let mut pads = [(0, 0); R];
        for axis in 0..R {
            let (sizes, steps) = ((extents[axis], kernel[axis]), (stride[axis], dilation[axis]));
            pads[axis] = self.padding.resolve(axis, sizes, steps).ok_or_else(|| {
                let got = format!("{:?} with dilation {} and stride {}", self.padding, steps.1, steps.0);
                Error::invalid(op, "padding", "a padding that does not overflow", got)
            })?;
        }
        Ok(pads)
    }

    /// Output extents of a convolution.
    fn windows(&self, op: &'static str, extents: [usize; R], kernel: [usize; R]) -> Result<[usize; R]> {
        let (stride, dilation) = self.steps(op, kernel, [1; R])?;
        let pads = self.pads(op, extents, kernel)?;
        let mut output = [0; R];
        for a in 0..R {
            output[a] = out_extent(op, extents[a], pads[a], (kernel[a], stride[a], dilation[a]))?;
        }
        Ok(output)
    }

    /// The padding (start, end) of an operator that takes no named rule.
    fn explicit(&self, op: &'static str) -> Result<[(usize, usize); R]> {
        match self.padding {
            Padding::Valid => Ok([(0, 0); R]),
            Padding::Explicit(sides) => Ok(sides),
            rule => Err(Error::invalid(op, "padding", "a number of elements", format!("{rule:?}"))),
        }
    }
}

/// Counts that are still to be checked; each is a sum of a few products that fit 64 bits.
#[derive(Clone, Copy, Default)]
struct Tally {
    parameters: u128,
    macs: u128,
    /// Multiplications and all operations that are no part of a MAC.
    other_multiplications: u128,
    other_flops: u128,
    /// Elements read and written.
    input: u128,
    weight: u128,
    output: u128,
}

impl Tally {
    fn cost(self, op: &'static str) -> Result<Cost> {
        let fit = |count: u128| u64::try_from(count).map_err(|_| too_many(op, count));
        Ok(Cost {
            parameters: fit(self.parameters)?,
            multiplications: fit(self.macs + self.other_multiplications)?,
            macs: fit(self.macs)?,
            flops: fit(2 * self.macs + self.other_flops)?,
            input_bytes: fit(4 * self.input)?,
            weight_bytes: fit(4 * self.weight)?,
            output_bytes: fit(4 * self.output)?,
        })
    }
}

/// A product that fits 64 bits.
fn product(op: &'static str, factors: &[&[usize]]) -> Result<u128> {
    let all = factors.concat();
    let count = all.iter().try_fold(1u64, |count, &factor| count.checked_mul(u64::try_from(factor).ok()?));
    count.map(u128::from).ok_or_else(|| too_many(op, format!("{all:?}")))
}

fn too_many(op: &'static str, got: impl fmt::Display) -> Error {
    Error::invalid(op, "input", "sizes whose counts fit 64 bits", got)
}
