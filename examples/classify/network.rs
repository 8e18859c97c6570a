//! MobileNetV2 (Sandler et al. 2018) at width 1, from torchvision's weights, and its run on the CPU reference.

use std::path::Path;

use wgconv::fold_batch_norm;
use wgconv::ndarray::{ArrayD, Axis};
use wgconv::reference::{self, ActivationKind, ConvSpec};

use super::common::{self, Archive, Error, Result};

/// Edge of the square pictures that the weights were trained on.
pub const SIZE: usize = 224;
pub const CLASSES: usize = 1000;

/// Rows of the paper's table 2: expansion factor, output channels, repeats, stride of the first.
const BLOCKS: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// Line `i` names class `i`.
pub fn load_labels(path: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(&common::read(path)?).into_owned();
    let labels: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
    if labels.len() != CLASSES {
        let reason = format!("expected {CLASSES} lines of labels, got {}", labels.len());
        return Err(Error::Contents { path: path.to_path_buf(), reason });
    }
    Ok(labels)
}

/// One step of the network. Its convolution has the batch norm behind it built in.
pub struct Layer {
    pub name: String,
    pub op: Op,
}

/// What a layer does.
pub enum Op {
    /// Convolution and bias, then the block's input added, then ReLU6, where it has them. Padding keeps the extent at stride 1.
    Conv { weight: ArrayD<f32>, bias: ArrayD<f32>, stride: usize, groups: usize, relu6: bool, shortcut: Shortcut },
    /// The mean of each channel.
    Pool,
    /// The classifier.
    Linear { weight: ArrayD<f32>, bias: ArrayD<f32> },
}

/// A layer's part in an inverted residual block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shortcut {
    None,
    /// The layer's input is kept: the block begins here.
    Keep,
    /// What was kept is added.
    Add,
}

/// The network on the host.
pub struct MobileNetV2 {
    pub layers: Vec<Layer>,
}

/// Builds layers from an archive's tensors, folding each batch norm on the way.
struct Builder<'a> {
    archive: &'a Archive,
    layers: Vec<Layer>,
}

impl Builder<'_> {
    /// The convolution `conv` of `c_out` channels with the batch norm `norm`.
    fn conv(
        &mut self,
        (conv, norm): (String, String),
        shape: [usize; 4],
        (stride, groups): (usize, usize),
        (relu6, shortcut): (bool, Shortcut),
    ) -> Result<()> {
        let weight = self.archive.get_shaped(&format!("{conv}.weight"), &shape)?;
        let vector =
            |name: &str| self.archive.get_shaped(&format!("{norm}.{name}"), &shape[..1]).map(|array| array.view());
        let (gamma, beta) = (vector("weight")?, vector("bias")?);
        let (mean, var) = (vector("running_mean")?, vector("running_var")?);
        let (weight, bias) = fold_batch_norm(weight.view(), None, gamma, beta, mean, var, 1e-5)?;
        self.layers.push(Layer { name: conv, op: Op::Conv { weight, bias, stride, groups, relu6, shortcut } });
        Ok(())
    }

    /// Expansion, depthwise, linear projection; the input is added where it has the output's shape.
    fn block(&mut self, i: usize, (expansion, c_in, c_out): (usize, usize, usize), stride: usize) -> Result<()> {
        let hidden = c_in * expansion;
        let name = |part: &str| format!("features.{i}.conv.{part}");
        let pair = |j: usize| (name(&format!("{j}.0")), name(&format!("{j}.1")));
        let (mut keep, add) = match stride == 1 && c_in == c_out {
            true => (Shortcut::Keep, Shortcut::Add),
            false => (Shortcut::None, Shortcut::None),
        };
        let mut part = 0;
        if expansion != 1 {
            self.conv(pair(part), [hidden, c_in, 1, 1], (1, 1), (true, keep))?;
            (part, keep) = (1, Shortcut::None);
        }
        self.conv(pair(part), [hidden, 1, 3, 3], (stride, hidden), (true, keep))?;
        let project = (name(&format!("{}", part + 1)), name(&format!("{}", part + 2)));
        self.conv(project, [c_out, hidden, 1, 1], (1, 1), (false, add))
    }
}

impl MobileNetV2 {
    /// Takes the weights by torchvision's names.
    pub fn new(archive: &Archive) -> Result<Self> {
        let mut builder = Builder { archive, layers: Vec::new() };
        let named = |i: usize| (format!("features.{i}.0"), format!("features.{i}.1"));
        builder.conv(named(0), [32, 3, 3, 3], (2, 1), (true, Shortcut::None))?;
        let (mut i, mut channels) = (1, 32);
        for (expansion, c_out, repeats, stride) in BLOCKS {
            for repeat in 0..repeats {
                builder.block(i, (expansion, channels, c_out), if repeat == 0 { stride } else { 1 })?;
                (i, channels) = (i + 1, c_out);
            }
        }
        builder.conv(named(i), [1280, channels, 1, 1], (1, 1), (true, Shortcut::None))?;
        let mut layers = builder.layers;
        layers.push(Layer { name: "pool".into(), op: Op::Pool });
        let weight = archive.get_shaped("classifier.1.weight", &[CLASSES, 1280])?.clone();
        let bias = archive.get_shaped("classifier.1.bias", &[CLASSES])?.clone();
        layers.push(Layer { name: "classifier.1".into(), op: Op::Linear { weight, bias } });
        Ok(Self { layers })
    }

    /// Weights and biases, batch norms folded.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.op.parameters()).sum()
    }

    /// Logits `[N, 1000]` of pictures `[N, 3, H, W]` on the CPU reference, in double precision throughout. `after` is called behind
    /// each layer with its output's shape.
    pub fn reference(&self, x: &ArrayD<f32>, mut after: impl FnMut(&Layer, &[usize])) -> Result<ArrayD<f64>> {
        let mut x = x.mapv(f64::from);
        let mut kept = None;
        for layer in &self.layers {
            x = layer.op.reference(x, &mut kept)?;
            after(layer, x.shape());
        }
        Ok(x)
    }
}

impl Op {
    fn parameters(&self) -> usize {
        match self {
            Op::Conv { weight, bias, .. } | Op::Linear { weight, bias } => weight.len() + bias.len(),
            Op::Pool => 0,
        }
    }

    /// Kernel, stride and shortcut in a few words.
    pub fn describe(&self) -> String {
        match self {
            Op::Conv { weight, stride, groups, shortcut, .. } => {
                let kernel = format!("{}x{}", weight.shape()[2], weight.shape()[3]);
                let depthwise = if *groups > 1 { " depthwise" } else { "" };
                let stride = if *stride > 1 { format!(" /{stride}") } else { String::new() };
                let shortcut = if *shortcut == Shortcut::Add { " + input" } else { "" };
                [&kernel, depthwise, &stride, shortcut].concat()
            }
            Op::Pool => "mean".into(),
            Op::Linear { .. } => "linear".into(),
        }
    }

    /// Floating-point operations for an output of that shape: two for each multiply-add, one for each addition of the pool.
    pub fn flops(&self, input: &[usize], output: &[usize]) -> f64 {
        let count = |shape: &[usize]| shape.iter().product::<usize>() as f64;
        match self {
            Op::Conv { weight, .. } | Op::Linear { weight, .. } => 2.0 * count(output) * count(&weight.shape()[1..]),
            Op::Pool => count(input),
        }
    }

    fn reference(&self, x: ArrayD<f64>, kept: &mut Option<ArrayD<f64>>) -> Result<ArrayD<f64>> {
        let wide = |array: &ArrayD<f32>| array.mapv(f64::from);
        Ok(match self {
            Op::Conv { weight, bias, stride, groups, relu6, shortcut } => {
                let pad = weight.shape()[2] / 2;
                let spec = ConvSpec {
                    stride: vec![*stride; 2],
                    pads: vec![(pad, pad); 2],
                    groups: *groups,
                    ..ConvSpec::new(2)
                };
                let y = reference::conv(x.view(), wide(weight).view(), Some(wide(bias).view()), &spec)?;
                let residual = kept.take_if(|_| *shortcut == Shortcut::Add);
                if *shortcut == Shortcut::Keep {
                    *kept = Some(x);
                }
                let activation = if *relu6 { ActivationKind::Relu6 } else { ActivationKind::Identity };
                reference::epilogue(y, residual.as_ref().map(|array| array.view()), activation)?
            }
            // [N, C, 1, 1] as [N, C].
            Op::Pool => reference::global_avg_pool(x.view())?.index_axis_move(Axis(3), 0).index_axis_move(Axis(2), 0),
            Op::Linear { weight, bias } => reference::linear(x.view(), wide(weight).view(), Some(wide(bias).view()))?,
        })
    }
}
