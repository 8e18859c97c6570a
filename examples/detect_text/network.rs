//! The text detector of PP-OCRv4, mobile: a PP-LCNetV3 backbone of depthwise 3x3 and 5x5 convolutions with hard swish, a feature
//! pyramid with squeeze-and-excitation, and a head (Liao et al. 2020) whose transposed convolutions bring the map to the picture's size.

use wgconv::ndarray::ArrayD;
use wgconv::{Activation, Gpu};

use super::common::{Archive, Error, Result};
use super::layers::{Dense, Filter, Layer, Loader, Up, Value, Window};

/// Edges of a picture are multiples of this: the deepest level has one pixel for as many.
pub const MULTIPLE: usize = 32;
const EPS: f64 = 1e-5;

/// Depthwise kernel, stride, input channels, output channels, hidden channels of the squeeze where there is one.
type BlockShape = (usize, usize, usize, usize, Option<usize>);

const BLOCKS: [BlockShape; 14] = [
    (3, 1, 16, 32, None),
    (3, 2, 32, 48, None),
    (3, 1, 48, 48, None),
    (3, 2, 48, 96, None),
    (3, 1, 96, 96, None),
    (3, 2, 96, 192, None),
    (5, 1, 192, 192, None),
    (5, 1, 192, 192, None),
    (5, 1, 192, 192, None),
    (5, 1, 192, 192, None),
    (5, 2, 192, 384, Some(48)),
    (5, 1, 384, 384, Some(96)),
    (5, 1, 384, 384, None),
    (5, 1, 384, 384, None),
];
/// The last block of each resolution, and the channels to which the neck reduces its output.
const LEVELS: [(usize, usize); 4] = [(2, 12), (4, 18), (9, 42), (13, 360)];
/// Channels of the neck, and of each level's output.
const NECK: usize = 96;
const OUT: usize = 24;

/// `scale * x + shift`, which the network has learned behind its activations. The layer that follows takes it in.
#[derive(Clone, Copy)]
struct Affine {
    scale: f64,
    shift: f64,
}

/// The network where it runs.
pub struct Detector {
    stem: Layer<2>,
    blocks: Vec<Block>,
    levels: Vec<Level>,
    head: Layer<2>,
    up: [Up; 2],
}

/// Depthwise convolution, squeeze-and-excitation in two of them, pointwise convolution. A shift of what comes before cannot go into a
/// depthwise convolution, whose padding is zero and not shifted, nor into a squeeze: it is added first.
struct Block {
    shift: Option<Value>,
    depthwise: Layer<2>,
    squeeze: Option<(Option<Value>, Squeeze)>,
    pointwise: Layer<2>,
}

/// A level of the neck: its part of the backbone's outputs, and what it adds to the head's input.
struct Level {
    reduce: Layer<2>,
    input: Layer<2>,
    input_squeeze: Squeeze,
    output: Layer<2>,
    output_squeeze: Squeeze,
}

/// Scales channels by what two linear layers make of their means (Hu et al. 2018).
struct Squeeze {
    down: Dense,
    up: Dense,
    /// One, where the input is added to the scaled input: its channels are scaled by that much more.
    more: Option<Value>,
}

impl Squeeze {
    /// `slope` is that of the hard sigmoid at zero: 1/6 in the backbone, Paddle's 0.2 in the neck. The operator's is 1/6; the layer before
    /// it takes in the rest.
    fn new(
        loader: &Loader<'_>,
        name: &str,
        (channels, hidden): (usize, usize),
        slope: f64,
        scale: f64,
    ) -> Result<Self> {
        let down = loader.filter(&format!("{name}.down"), &[hidden, channels, 1, 1], true)?.after(scale, 0.0);
        let up = loader.filter(&format!("{name}.up"), &[channels, hidden, 1, 1], true)?.then(slope * 6.0, 0.0);
        Ok(Self {
            down: loader.dense(down, Activation::Relu)?,
            up: loader.dense(up, Activation::HardSigmoid)?,
            more: None,
        })
    }

    /// The neck's, which adds its input.
    fn residual(loader: &Loader<'_>, name: &str, channels: usize) -> Result<Self> {
        let squeeze = Self::new(loader, name, (channels, channels / 4), 0.2, 1.0)?;
        Ok(Self { more: Some(constant(loader, 1.0)?), ..squeeze })
    }

    fn forward(&self, x: &Value) -> Result<Value> {
        let (n, channels) = (x.shape()[0], x.shape()[1]);
        let means = x.mean()?.reshape(&[n, channels])?;
        let scale = self.up.forward(&self.down.forward(&means)?)?.reshape(&[n, channels, 1, 1])?;
        match &self.more {
            Some(one) => x.mul(&scale.add(one)?),
            None => x.mul(&scale),
        }
    }
}

/// A number that is added to a whole array.
fn constant(loader: &Loader<'_>, value: f64) -> Result<Value> {
    loader.put(&ArrayD::from_elem(vec![1; 4], value as f32))
}

impl Affine {
    const NONE: Self = Self { scale: 1.0, shift: 0.0 };

    fn load(loader: &Loader<'_>, name: &str) -> Result<Self> {
        let scale = loader.scalar(&format!("{name}.scale"))?;
        let shift = loader.scalar(&format!("{name}.shift"))?;
        // The shift is divided by the scale where it is added before a layer that takes in the scale.
        if !(shift / scale).is_finite() {
            let (path, reason) = (loader.archive.path.clone(), format!("{name}.scale: expected not 0, got {scale}"));
            return Err(Error::Contents { path, reason });
        }
        Ok(Self { scale, shift })
    }

    fn after(self, filter: Filter) -> Filter {
        filter.then(self.scale, self.shift)
    }

    /// What to add where only the scale goes into the next layer.
    fn shift(self, loader: &Loader<'_>) -> Result<Option<Value>> {
        let none = self.shift == 0.0;
        (!none).then(|| constant(loader, self.shift / self.scale)).transpose()
    }
}

impl Block {
    /// The block behind an output that wants `before`; what its own output wants comes back.
    fn new(loader: &Loader<'_>, i: usize, shape: BlockShape, before: Affine) -> Result<(Self, Affine)> {
        let (kernel, stride, c_in, c_out, hidden) = shape;
        let name = |part: &str| format!("block.{i}.{part}");
        let affine = |part: &str| Affine::load(loader, &name(part));
        let window = Window { stride: [stride; 2], padding: [kernel / 2; 2], groups: c_in, ..Window::default() };
        let depthwise = loader.filter(&name("depthwise"), &[c_in, 1, kernel, kernel], true)?.after(before.scale, 0.0);
        let depthwise = affine("depthwise.affine")?.after(depthwise);
        let (activation, between) = match stride {
            1 => (Activation::HardSwish, affine("depthwise.act")?),
            _ => (Activation::Identity, Affine::NONE),
        };
        let squeeze = hidden.map(|hidden| {
            let squeeze = Squeeze::new(loader, &name("se"), (c_in, hidden), 1.0 / 6.0, between.scale)?;
            Ok::<_, Error>((between.shift(loader)?, squeeze))
        });
        let shift = if hidden.is_some() { 0.0 } else { between.shift };
        let pointwise = loader.filter(&name("pointwise"), &[c_out, c_in, 1, 1], true)?.after(between.scale, shift);
        let pointwise = affine("pointwise.affine")?.after(pointwise);
        let block = Self {
            shift: before.shift(loader)?,
            depthwise: loader.conv(depthwise, window, activation)?,
            squeeze: squeeze.transpose()?,
            pointwise: loader.conv(pointwise, Window::default(), Activation::HardSwish)?,
        };
        Ok((block, affine("pointwise.act")?))
    }

    fn forward(&self, x: &Value) -> Result<Value> {
        let mut x = self.depthwise.forward(&plus(x, self.shift.as_ref())?)?;
        if let Some((shift, squeeze)) = &self.squeeze {
            x = squeeze.forward(&plus(&x, shift.as_ref())?)?;
        }
        self.pointwise.forward(&x)
    }
}

fn plus(x: &Value, shift: Option<&Value>) -> Result<Value> {
    shift.map_or_else(|| Ok(x.clone()), |shift| x.add(shift))
}

impl Level {
    fn new(loader: &Loader<'_>, i: usize, (channels, reduced): (usize, usize), before: Affine) -> Result<Self> {
        let name = |part: &str| format!("neck.{i}.{part}");
        let plain = |filter, padding| {
            let window = Window { padding: [padding; 2], ..Window::default() };
            loader.conv(filter, window, Activation::Identity)
        };
        let reduce = loader.filter(&name("reduce"), &[reduced, channels, 1, 1], true)?;
        Ok(Self {
            reduce: plain(reduce.after(before.scale, before.shift), 0)?,
            input: plain(loader.filter(&name("in"), &[NECK, reduced, 1, 1], false)?, 0)?,
            input_squeeze: Squeeze::residual(loader, &name("in.se"), NECK)?,
            output: plain(loader.filter(&name("out"), &[OUT, NECK, 3, 3], false)?, 1)?,
            output_squeeze: Squeeze::residual(loader, &name("out.se"), OUT)?,
        })
    }
}

impl Detector {
    /// Takes the weights by name; without a GPU the network runs on the CPU reference.
    pub fn new(archive: &Archive, gpu: Option<&Gpu>) -> Result<Self> {
        let loader = &Loader { archive, gpu };
        let around = Window { padding: [1; 2], ..Window::default() };
        let stem = loader.filter("stem", &[16, 3, 3, 3], false)?.norm(loader, "stem.norm", EPS)?;
        let stem = loader.conv(stem, Window { stride: [2; 2], ..around }, Activation::Identity)?;
        let (mut blocks, mut levels, mut before) = (Vec::new(), Vec::new(), Affine::NONE);
        for (i, shape) in BLOCKS.into_iter().enumerate() {
            let (block, after) = Block::new(loader, i, shape, before)?;
            blocks.push(block);
            before = after;
            if let Some(level) = LEVELS.iter().position(|&(last, _)| last == i) {
                levels.push(Level::new(loader, level, (shape.3, LEVELS[level].1), before)?);
            }
        }
        let head = loader.filter("head.conv", &[OUT, NECK, 3, 3], false)?.norm(loader, "head.conv.norm", EPS)?;
        let first = loader.transposed("head.up.0", &[OUT, OUT, 2, 2], true)?.norm(loader, "head.up.0.norm", EPS)?;
        let second = loader.transposed("head.up.1", &[OUT, 1, 2, 2], true)?;
        let up = [loader.up(first, Activation::Relu)?, loader.up(second, Activation::Sigmoid)?];
        Ok(Self { stem, blocks, levels, head: loader.conv(head, around, Activation::Relu)?, up })
    }

    /// Records the network: for pictures `[N, 3, H, W]`, blue first, in -1..1, with edges that are multiples of [`MULTIPLE`], the
    /// probabilities `[N, 1, H, W]` that a pixel belongs to the core of a line of text.
    pub fn probabilities(&self, x: &Value) -> Result<Value> {
        let mut x = self.stem.forward(x)?;
        let mut taps = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            if LEVELS.iter().any(|&(last, _)| last == i) {
                taps.push(x.clone());
            }
        }
        // From the deepest level up: each adds the one below to its own.
        let (mut parts, mut below): (Vec<Value>, Option<Value>) = (Vec::new(), None);
        for (i, (level, tap)) in self.levels.iter().zip(&taps).enumerate().rev() {
            let own = level.input_squeeze.forward(&level.input.forward(&level.reduce.forward(tap)?)?)?;
            let sum = match &below {
                Some(below) => own.add(&below.upsample(2)?)?,
                None => own,
            };
            let part = level.output_squeeze.forward(&level.output.forward(&sum)?)?;
            parts.push(if i == 0 { part } else { part.upsample(1 << i)? });
            below = Some(sum);
        }
        let x = self.head.forward(&Value::concat(&parts)?)?;
        self.up[1].forward(&self.up[0].forward(&x)?)
    }
}
