//! The layers that stand for each other: the same input, the same extents of the output, made by different operators. What each costs by
//! `analysis::cost`, and how to run it.

use serde::Serialize;
use wgconv::analysis::cost::{self, Cost, Options};
use wgconv::ndarray::{ArrayD, IxDyn};
use wgconv::reference::{
    self, ActivationKind, BatchNormParams, ConvSpec, DeformSpec, InvolutionLayerSpec, InvolutionSpec, epilogue,
};
use wgconv::{
    Activation, BatchNorm, Conv2d, DeformConv2d, Gpu, Involution2d, InvolutionLayer, InvolutionLayerWeights, Padding,
    Tensor,
};

use super::common::{Error, Result};

/// The layer that is to be replaced. Outputs have the input's height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    pub batch: usize,
    pub c_in: usize,
    pub c_out: usize,
    pub height: usize,
    pub width: usize,
    /// Taps along both axes.
    pub kernel: usize,
    /// Of the grouped convolution.
    pub groups: usize,
}

/// A way to make the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Standard,
    Grouped,
    /// A depthwise convolution, then a pointwise one.
    DepthwiseSeparable,
    /// A convolution along the columns, then one along the rows.
    SpatiallySeparable,
    /// It sees one pixel only.
    Pointwise,
    /// Version 2, with the two convolutions that make its offsets and its mask.
    DeformableV2,
    /// The layer of RedNet with a kernel of so many taps along both axes, and where the channels change a pointwise convolution.
    Involution(usize),
}

/// RedNet's channels a group, and its reduction.
const GROUP_CHANNELS: usize = 16;
const REDUCTION: usize = 4;
/// RedNet's kernel.
const REDNET: usize = 7;
/// More bytes than this are not tried.
const MOST_BYTES: u64 = 4 << 30;
/// What batch norm adds to the variance.
const EPS: f64 = 1e-5;

impl Kind {
    /// All rows of a table for such a kernel.
    pub fn all(kernel: usize) -> Vec<Self> {
        let mut all = vec![
            Self::Standard,
            Self::Grouped,
            Self::DepthwiseSeparable,
            Self::SpatiallySeparable,
            Self::Pointwise,
            Self::DeformableV2,
            Self::Involution(kernel),
        ];
        if kernel != REDNET {
            all.push(Self::Involution(REDNET));
        }
        all
    }
}

/// Checks that every row can take a layer.
///
/// # Errors
/// As [`Row::new`].
pub fn check(layer: &Layer) -> Result<()> {
    Kind::all(layer.kernel).into_iter().try_for_each(|kind| Row::new(layer, kind).map(drop))
}

/// One step of a row; `[usize; 4]` is a weight's shape.
#[derive(Clone, Copy, Debug)]
enum Step {
    Conv { weight: [usize; 4], groups: usize },
    Deform { weight: [usize; 4] },
    Involution { channels: usize, reduction: usize, groups: usize, kernel: usize },
}

/// A layer made one way.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub kind: Kind,
    pub cost: Cost,
    input: [usize; 4],
    steps: Vec<Step>,
}

impl Row {
    /// Checks the layer and counts what it costs.
    ///
    /// # Errors
    /// Channels that the groups do not divide, and sizes that cannot be counted or are more than this example tries.
    pub fn new(layer: &Layer, kind: Kind) -> Result<Self> {
        let Layer { batch, c_in, c_out, height, width, kernel: k, groups } = *layer;
        let input = [batch, c_in, height, width];
        for (option, value) in
            [("channels", c_in.min(c_out)), ("size", height.min(width)), ("kernel", k), ("batch", batch)]
        {
            if value == 0 {
                return Err(Error::Failed(format!("--{option}: expected at least 1, got 0")));
            }
        }
        if groups == 0 || c_in % groups != 0 || c_out % groups != 0 {
            let message = format!("--groups: expected a divisor of {c_in} and {c_out} channels, got {groups}");
            return Err(Error::Failed(message));
        }
        let same = Options::<2>::new().padding(Padding::Same);
        let plain = Options::<2>::new();
        let conv = |weight, groups| Step::Conv { weight, groups };
        let (dense, pointwise) = ([c_out, c_in, k, k], [c_out, c_in, 1, 1]);
        let (name, cost, steps) = match kind {
            Kind::Standard => (format!("standard {k}x{k}"), cost::conv(&input, &dense, &same)?, vec![conv(dense, 1)]),
            Kind::Grouped => {
                let weight = [c_out, c_in / groups, k, k];
                let cost = cost::conv(&input, &weight, &same.groups(groups))?;
                (format!("grouped {k}x{k}, {groups} groups"), cost, vec![conv(weight, groups)])
            }
            Kind::DepthwiseSeparable => {
                let depthwise = [c_in, 1, k, k];
                let cost = cost::separable(&input, &depthwise, &pointwise, &same)?;
                (format!("depthwise separable {k}x{k}"), cost, vec![conv(depthwise, c_in), conv(pointwise, 1)])
            }
            Kind::SpatiallySeparable => {
                let (column, row) = ([c_out, c_in, k, 1], [c_out, c_out, 1, k]);
                let cost = cost::spatially_separable(&input, &column, &row, &same)?;
                (format!("spatially separable {k}x1, 1x{k}"), cost, vec![conv(column, 1), conv(row, 1)])
            }
            Kind::Pointwise => {
                ("pointwise 1x1".to_string(), cost::conv(&input, &pointwise, &plain)?, vec![conv(pointwise, 1)])
            }
            Kind::DeformableV2 => {
                let taps = k.saturating_mul(k);
                let makes = cost::conv(&input, &[taps.saturating_mul(3), c_in, k, k], &same)?;
                let cost = makes + cost::deform_conv2d(&input, &dense, &same.mask(true))?;
                (format!("deformable v2 {k}x{k}"), cost, vec![Step::Deform { weight: dense }])
            }
            Kind::Involution(k) => {
                let groups = if c_in % GROUP_CHANNELS == 0 { c_in / GROUP_CHANNELS } else { 1 };
                let reduction = if c_in % REDUCTION == 0 { REDUCTION } else { 1 };
                let mut cost = cost::involution_layer(&input, k, reduction, &same.groups(groups))?;
                let mut steps = vec![Step::Involution { channels: c_in, reduction, groups, kernel: k }];
                let mut name = format!("involution layer {k}x{k}");
                if c_in != c_out {
                    cost = cost + cost::conv(&input, &pointwise, &plain)?;
                    steps.push(conv(pointwise, 1));
                    name += ", 1x1";
                }
                (name, cost, steps)
            }
        };
        if cost.bytes() > MOST_BYTES {
            let gib = cost.bytes() >> 30;
            return Err(Error::Failed(format!("{name}: moves {gib} GiB, which is more than this example tries")));
        }
        Ok(Self { name, kind, cost, input, steps })
    }

    /// A seeded input.
    pub fn input(&self) -> ArrayD<f32> {
        random(&self.input, 1, 1.0)
    }

    /// Uploads the weights.
    pub fn on_gpu(&self, gpu: &Gpu) -> Result<OnGpu> {
        let steps =
            self.steps.iter().zip(0..).map(|(step, seed)| GpuStep::new(gpu, step, seed)).collect::<Result<_>>()?;
        Ok(OnGpu { input: Tensor::from_array(gpu, &self.input())?, steps })
    }

    /// The output by the CPU reference.
    pub fn on_reference(&self) -> Result<ArrayD<f64>> {
        let mut x = self.input().mapv(f64::from);
        for (step, seed) in self.steps.iter().zip(0..) {
            x = on_reference(step, &x, seed)?;
        }
        Ok(x)
    }
}

/// A row ready to run.
pub struct OnGpu {
    input: Tensor,
    steps: Vec<GpuStep>,
}

enum GpuStep {
    Conv(Conv2d, Tensor),
    Deform { makes: [Tensor; 2], weight: Tensor },
    Involution(Box<InvolutionLayer>),
}

impl OnGpu {
    /// Records the row.
    pub fn forward(&self) -> wgconv::Result<Tensor> {
        let mut x = self.input.clone();
        for step in &self.steps {
            x = match step {
                GpuStep::Conv(conv, weight) => conv.forward(&x, weight, None)?,
                GpuStep::Deform { makes: [offset, mask], weight } => {
                    let same = Conv2d::new().padding(Padding::Same);
                    let offset = same.forward(&x, offset, None)?;
                    let mask = same.activation(Activation::Sigmoid).forward(&x, mask, None)?;
                    DeformConv2d::new().padding(Padding::Same).forward(&x, &offset, weight, None, Some(&mask))?
                }
                GpuStep::Involution(layer) => layer.forward(&x)?,
            };
        }
        Ok(x)
    }
}

impl GpuStep {
    fn new(gpu: &Gpu, step: &Step, seed: u64) -> Result<Self> {
        let upload = |array: ArrayD<f32>| Tensor::from_array(gpu, &array);
        Ok(match *step {
            Step::Conv { weight, groups } => {
                Self::Conv(Conv2d::new().padding(Padding::Same).groups(groups), upload(normal(&weight, seed))?)
            }
            Step::Deform { weight } => {
                let [offset, mask] = makers(weight, seed);
                Self::Deform { makes: [upload(offset)?, upload(mask)?], weight: upload(normal(&weight, seed))? }
            }
            Step::Involution { channels, reduction, groups, kernel } => {
                let [reduce, span] = spanners(channels, reduction, groups * kernel * kernel, seed);
                let (ones, zeros) = unit_norm(channels / reduction);
                let (gamma, beta, mean, var) = (ones.view(), zeros.view(), zeros.view(), ones.view());
                let norm = BatchNorm { gamma, beta, mean, var, eps: EPS };
                let weights =
                    InvolutionLayerWeights { reduce: reduce.view(), norm, span: span.view(), span_bias: None };
                let involution = Involution2d::new().kernel_size(kernel).padding(Padding::Same).groups(groups);
                Self::Involution(Box::new(InvolutionLayer::new(gpu, involution, &weights)?))
            }
        })
    }
}

fn on_reference(step: &Step, x: &ArrayD<f64>, seed: u64) -> Result<ArrayD<f64>> {
    let double = |array: ArrayD<f32>| array.mapv(f64::from);
    // As `Padding::Same` has it: the odd one at the end.
    let pads = |kernel: usize| ((kernel - 1) / 2, kernel / 2);
    let spec = |weight: &[usize], groups| ConvSpec {
        pads: vec![pads(weight[2]), pads(weight[3])],
        groups,
        ..ConvSpec::new(2)
    };
    let conv = |w: ArrayD<f32>, groups| {
        let spec = spec(w.shape(), groups);
        reference::conv(x.view(), double(w).view(), None, &spec)
    };
    Ok(match *step {
        Step::Conv { weight, groups } => conv(normal(&weight, seed), groups)?,
        Step::Deform { weight } => {
            let [offset, mask] = makers(weight, seed);
            let offset = conv(offset, 1)?;
            let mask = epilogue::<f64>(conv(mask, 1)?, None, ActivationKind::Sigmoid)?;
            let spec = DeformSpec { pads: [pads(weight[2]), pads(weight[3])], ..DeformSpec::new() };
            let weight = double(normal(&weight, seed));
            reference::deform_conv2d(x.view(), offset.view(), Some(mask.view()), weight.view(), None, &spec)?
        }
        Step::Involution { channels, reduction, groups, kernel } => {
            let [reduce, span] = spanners(channels, reduction, groups * kernel * kernel, seed).map(double);
            let (ones, zeros) = unit_norm(channels / reduction);
            let (ones, zeros) = (double(ones), double(zeros));
            let norm = BatchNormParams { gamma: ones.view(), beta: zeros.view(), mean: zeros.view(), var: ones.view() };
            let inv = InvolutionSpec { pads: [pads(kernel); 2], groups, ..InvolutionSpec::new([kernel; 2]) };
            let spec = InvolutionLayerSpec { inv, eps: EPS };
            reference::involution_layer(x.view(), reduce.view(), norm, span.view(), None, &spec)?
        }
    })
}

/// Weights of the convolutions that make offsets and masks.
fn makers([_, c_in, kh, kw]: [usize; 4], seed: u64) -> [ArrayD<f32>; 2] {
    // About one element to either side, as trained offsets are.
    [normal(&[2 * kh * kw, c_in, kh, kw], seed + 100), normal(&[kh * kw, c_in, kh, kw], seed + 200)]
}

/// Weights of an involution layer's two 1x1 convolutions.
fn spanners(channels: usize, reduction: usize, spanned: usize, seed: u64) -> [ArrayD<f32>; 2] {
    let reduced = channels / reduction;
    [normal(&[reduced, channels, 1, 1], seed + 300), normal(&[spanned, reduced, 1, 1], seed + 400)]
}

fn unit_norm(channels: usize) -> (ArrayD<f32>, ArrayD<f32>) {
    (ArrayD::ones(IxDyn(&[channels])), ArrayD::zeros(IxDyn(&[channels])))
}

/// Seeded weights whose sums over inputs of about 1 are about 1 (He et al. 2015).
fn normal(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let inputs: usize = shape[1..].iter().product();
    random(shape, seed + 2, (3.0 / inputs as f32).sqrt())
}

/// Seeded reals in `-scale..scale`, by SplitMix64 (Steele, Lea and Flood 2014).
fn random(shape: &[usize], seed: u64, scale: f32) -> ArrayD<f32> {
    let mut state = seed;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 * scale - scale
    })
}
