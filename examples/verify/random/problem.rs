//! A drawn problem as plain numbers: what a failure prints and what shrinking makes smaller.

use std::fmt;

use wgconv::reference::{ActivationKind, BorderMode};

use super::super::common::{Error, Result};
use super::super::operation::{Operation, Operator};
use super::fill::Fill;

/// The operators that are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Conv,
    ConvTranspose,
    DeformConv,
    Involution,
    SeparableConv,
    InvolutionLayer,
    Linear,
    MaxPool,
    AvgPool,
    GlobalAvgPool,
    Softmax,
    Add,
    Mul,
    Activation,
    Concat,
    Narrow,
    PixelShuffle,
    UpsampleNearest,
}

impl Op {
    /// All of them, with how often each is drawn.
    pub const ALL: [(Op, u64); 18] = [
        (Op::Conv, 44),
        (Op::ConvTranspose, 14),
        (Op::DeformConv, 10),
        (Op::Involution, 10),
        (Op::SeparableConv, 6),
        (Op::InvolutionLayer, 6),
        (Op::Linear, 6),
        (Op::MaxPool, 2),
        (Op::AvgPool, 2),
        (Op::GlobalAvgPool, 1),
        (Op::Softmax, 2),
        (Op::Add, 2),
        (Op::Mul, 1),
        (Op::Activation, 2),
        (Op::Concat, 1),
        (Op::Narrow, 1),
        (Op::PixelShuffle, 1),
        (Op::UpsampleNearest, 1),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Op::Conv => "conv",
            Op::ConvTranspose => "conv_transpose",
            Op::DeformConv => "deform_conv",
            Op::Involution => "involution",
            Op::SeparableConv => "separable_conv",
            Op::InvolutionLayer => "involution_layer",
            Op::Linear => "linear",
            Op::MaxPool => "max_pool",
            Op::AvgPool => "avg_pool",
            Op::GlobalAvgPool => "global_avg_pool",
            Op::Softmax => "softmax",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Activation => "activation",
            Op::Concat => "concat",
            Op::Narrow => "narrow",
            Op::PixelShuffle => "pixel_shuffle",
            Op::UpsampleNearest => "upsample_nearest",
        }
    }

    /// The operators of a list of names with commas between them.
    pub fn list(names: &str) -> Result<Vec<Op>> {
        let find = |name: &str| Self::ALL.iter().find(|(op, _)| op.name() == name).map(|(op, _)| *op);
        let known = || Self::ALL.map(|(op, _)| op.name()).join(", ");
        let unknown = |name: &str| Error::Failed(format!("--ops: expected names among {}, got \"{name}\"", known()));
        names.split(',').map(|name| find(name.trim()).ok_or_else(|| unknown(name))).collect()
    }

    /// The one of [`Operation`], where it is that.
    pub fn operator(self) -> Option<Operator> {
        match self {
            Op::Conv => Some(Operator::Conv),
            Op::ConvTranspose => Some(Operator::ConvTranspose),
            Op::DeformConv => Some(Operator::DeformConv),
            Op::Involution => Some(Operator::Involution),
            _ => None,
        }
    }
}

/// One problem. Each operator has its use for some of the fields; the others are at their least.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub op: Op,
    pub batch: usize,
    pub groups: usize,
    pub offset_groups: usize,
    /// Input and output channels of a group; input and output features of [`Op::Linear`].
    pub channels: [usize; 2],
    /// Spatial extents, or all axes of an operator that knows no channels.
    pub extents: Vec<usize>,
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub dilation: Vec<usize>,
    pub pads: Vec<(usize, usize)>,
    pub output_padding: Vec<usize>,
    pub border: BorderMode,
    pub flip: bool,
    pub fast_math: bool,
    pub mask: bool,
    /// ReLU between the two parts of a separable convolution.
    pub between: bool,
    pub ceil: bool,
    pub include_pad: bool,
    /// Of softmax, concat and narrow.
    pub axis: usize,
    /// Lengths of the second and third input of concat, start and end left out of narrow, factors of the image operators; the channels that
    /// an involution layer spans its kernels from.
    pub parts: [usize; 2],
    /// Axes of the two arguments of add and mul that are broadcast, a bit each; [`Problem::leading`] axes of the second are left out.
    pub spread: [u32; 2],
    pub leading: usize,
    pub bias: bool,
    pub residual: bool,
    pub activation: ActivationKind,
    pub fill: Fill,
    /// What the values are drawn from.
    pub seed: u64,
}

impl Problem {
    /// The least problem of an operator over so many axes.
    pub fn new(op: Op, rank: usize) -> Self {
        Self {
            op,
            batch: 1,
            groups: 1,
            offset_groups: 1,
            channels: [1, 1],
            extents: vec![1; rank],
            kernel: vec![1; rank],
            stride: vec![1; rank],
            dilation: vec![1; rank],
            pads: vec![(0, 0); rank],
            output_padding: vec![0; rank],
            border: BorderMode::Zeros,
            flip: false,
            fast_math: false,
            mask: false,
            between: false,
            ceil: false,
            include_pad: false,
            axis: 0,
            parts: [1, 1],
            spread: [0, 0],
            leading: 0,
            bias: false,
            residual: false,
            activation: ActivationKind::Identity,
            fill: Fill::Integers,
            seed: 0,
        }
    }

    /// Input channels.
    pub fn c_in(&self) -> usize {
        self.groups * self.channels[0]
    }

    /// Output channels.
    pub fn c_out(&self) -> usize {
        self.groups * self.channels[1]
    }

    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// The operation, where the operator is one of those.
    pub fn operation(&self) -> Option<Operation> {
        Some(Operation {
            stride: self.stride.clone(),
            dilation: self.dilation.clone(),
            pads: self.pads.clone(),
            output_padding: self.output_padding.clone(),
            groups: self.groups,
            offset_groups: self.offset_groups,
            border: self.border,
            flip_kernel: self.flip,
            fast_math: self.fast_math,
            ..Operation::new(self.op.operator()?, &self.kernel)
        })
    }

    /// The first argument's shape.
    pub fn input_shape(&self) -> Vec<usize> {
        let images = |channels: usize| [&[self.batch, channels], &self.extents[..]].concat();
        match self.op {
            Op::Conv | Op::ConvTranspose | Op::DeformConv | Op::Involution => images(self.c_in()),
            Op::SeparableConv
            | Op::InvolutionLayer
            | Op::MaxPool
            | Op::AvgPool
            | Op::GlobalAvgPool
            | Op::UpsampleNearest => images(self.c_in()),
            Op::PixelShuffle => images(self.c_in() * self.parts[0] * self.parts[0]),
            Op::Linear => [&self.extents[..], &[self.channels[0]]].concat(),
            Op::Add | Op::Mul => self.spread(0),
            Op::Softmax | Op::Activation | Op::Concat => self.extents.clone(),
            Op::Narrow => self.with_axis(self.extents[self.axis] + self.parts[0] + self.parts[1]),
        }
    }

    /// The extents with another along the axis.
    pub fn with_axis(&self, extent: usize) -> Vec<usize> {
        let mut shape = self.extents.clone();
        shape[self.axis] = extent;
        shape
    }

    /// The shape of an argument of add and mul.
    pub fn spread(&self, argument: usize) -> Vec<usize> {
        let bits = self.spread[argument];
        let axes = self.extents.iter().enumerate();
        axes.map(|(i, &extent)| if bits >> i & 1 == 1 { 1 } else { extent })
            .skip(if argument == 1 { self.leading } else { 0 })
            .collect()
    }

    /// The second argument's shape, where it has one; an involution's weight depends on the output.
    pub fn weight_shape(&self, output: &[usize]) -> Option<Vec<usize>> {
        let [cg, og] = self.channels;
        match self.op {
            Op::Conv | Op::DeformConv => Some([&[self.groups * og, cg], &self.kernel[..]].concat()),
            Op::ConvTranspose => Some([&[self.groups * cg, og], &self.kernel[..]].concat()),
            Op::Involution => {
                Some([&[self.batch, self.groups], &self.kernel[..], &output[output.len().min(2)..]].concat())
            }
            // What spans the kernels.
            Op::InvolutionLayer => Some(vec![self.groups * self.taps(), self.parts[0], 1, 1]),
            // Of its pointwise part.
            Op::SeparableConv => Some(vec![og, cg, 1, 1]),
            Op::Linear => Some(vec![og, cg]),
            Op::Add | Op::Mul => Some(self.spread(1)),
            Op::Concat => Some(self.with_axis(self.parts[0])),
            _ => None,
        }
    }

    /// Whether it sums products with weights.
    pub fn has_weights(&self) -> bool {
        self.op.operator().is_some() || matches!(self.op, Op::Linear | Op::SeparableConv | Op::InvolutionLayer)
    }

    /// Channels of the bias.
    pub fn bias_len(&self) -> usize {
        match self.op {
            Op::Involution => self.c_in(),
            Op::InvolutionLayer => self.groups * self.taps(),
            Op::Linear => self.channels[1],
            _ => self.c_out(),
        }
    }

    /// Whether results must be the reference's, to the last bit, on all kernels but F(4x4, 3x3).
    pub fn exact(&self) -> bool {
        use ActivationKind::{Identity, LeakyRelu, Relu, Relu6};
        let moves = matches!(self.op, Op::Concat | Op::Narrow | Op::PixelShuffle | Op::UpsampleNearest | Op::MaxPool);
        let linear = matches!(self.activation, Identity | Relu | Relu6 | LeakyRelu(_));
        let divides = matches!(self.op, Op::AvgPool | Op::GlobalAvgPool | Op::Softmax);
        // What is below the least normal number may be lost, or rounded by an activation.
        linear && !divides && (moves && self.fill != Fill::Denormal || self.fill.is_exact())
    }

    /// Roughly the multiplications of a problem, by which its size is kept small.
    pub fn work(&self) -> usize {
        let product = |values: &[usize]| values.iter().fold(1usize, |p, &v| p.saturating_mul(v));
        let output = self.extents.iter().zip(&self.stride).zip(&self.pads);
        let positions = output.map(|((&e, &s), &(a, b))| match self.op {
            Op::ConvTranspose => e,
            _ => (e + a + b).div_ceil(s.max(1)),
        });
        let positions: usize = self.batch * product(&positions.collect::<Vec<_>>());
        let channels = match self.op {
            Op::Conv | Op::ConvTranspose => self.groups * self.channels[0] * self.channels[1],
            Op::DeformConv => self.groups * self.channels[0] * (self.channels[1] + 8),
            Op::Involution => self.c_in() + 4 * self.groups,
            Op::InvolutionLayer => {
                let kernels = self.c_in() * self.parts[0] + self.groups * self.taps() * self.parts[0];
                return positions * (kernels + self.c_in() * self.taps()) + product(&self.input_shape());
            }
            Op::SeparableConv => {
                return positions * self.c_in() * (self.taps() + self.c_out()) + product(&self.input_shape());
            }
            Op::Linear => self.channels[0] * self.channels[1] + self.channels[0] + self.channels[1],
            Op::PixelShuffle | Op::UpsampleNearest => self.c_in() * self.parts[0] * self.parts[1].max(self.parts[0]),
            _ => self.c_in(),
        };
        let plain = positions * channels * self.taps().max(1);
        // The tensors themselves, and the padding that an input has.
        plain + product(&self.input_shape()) + self.c_out() * positions
    }
}

impl fmt::Display for Problem {
    /// What is not at its least.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} input {:?}", self.op.name(), self.input_shape())?;
        if self.has_weights() {
            write!(f, " channels a group {:?} kernel {:?}", self.channels, self.kernel)?;
        }
        let least = Self::new(self.op, self.extents.len());
        macro_rules! fields {
            ($($field:ident)*) => {
                $(if self.$field != least.$field {
                    write!(f, " {} {:?}", stringify!($field), self.$field)?;
                })*
            };
        }
        if !self.has_weights() {
            fields!(kernel);
        }
        fields!(groups offset_groups stride dilation pads output_padding border flip fast_math mask between ceil include_pad);
        fields!(axis parts spread leading bias residual activation fill);
        write!(f, " values {:#x}", self.seed)
    }
}
