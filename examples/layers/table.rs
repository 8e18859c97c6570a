//! The table of layers: shapes and options, seeded arrays for them, and how much work they are.

use std::path::Path;

use serde::Deserialize;
use wgconv::ndarray::{ArrayD, IxDyn};

use super::common::{Error, Result, read};
use super::operation::{Arrays, Operation, Operator};

/// The layers that measurements of this crate use.
pub const LAYERS: &str = include_str!("../../benches/layers.json");

/// What a layer is sized for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Two CPU cores.
    Cpu,
    /// A discrete GPU.
    Gpu,
}

#[derive(Debug, Deserialize)]
struct Table {
    cases: Vec<Layer>,
}

/// One layer of the table.
#[derive(Clone, Debug, Deserialize)]
pub struct Layer {
    pub name: String,
    pub op: Operator,
    pub tier: Tier,
    batch: usize,
    in_channels: usize,
    spatial: Vec<usize>,
    out_channels: usize,
    kernel: Vec<usize>,
    stride: Vec<usize>,
    /// Of both sides of each axis.
    padding: Vec<usize>,
    dilation: Vec<usize>,
    groups: usize,
    #[serde(default = "one")]
    offset_groups: usize,
    #[serde(default)]
    mask: bool,
}

fn one() -> usize {
    1
}

/// A layer made ready: the operation, the shapes, and the work by the usual counts.
pub struct Problem {
    pub operation: Operation,
    pub output: Vec<usize>,
    input: Vec<usize>,
    weight: Vec<usize>,
    offset: Option<Vec<usize>>,
    mask: Option<Vec<usize>>,
    /// Two for each multiplication and addition of a weight; bilinear interpolation is not counted.
    pub flops: f64,
    /// Every argument read once and the output written once.
    pub least_bytes: f64,
}

/// Reads a table; `None` is the one in this crate.
pub fn read_table(path: Option<&Path>) -> Result<Vec<Layer>> {
    let parse = |text: &[u8], path: &Path| match serde_json::from_slice::<Table>(text) {
        Ok(table) => Ok(table.cases),
        Err(error) => {
            let reason = format!("not a table of layers: {error}");
            Err(Error::Contents { path: path.to_path_buf(), reason })
        }
    };
    match path {
        Some(path) => parse(&read(path)?, path),
        None => parse(LAYERS.as_bytes(), Path::new("benches/layers.json")),
    }
}

impl Layer {
    /// Checks the layer and counts its work.
    pub fn problem(&self) -> Result<Problem> {
        let wrong = |reason: String| Error::Failed(format!("{}: {reason}", self.name));
        let rank = self.spatial.len();
        for (option, length) in [("kernel", self.kernel.len()), ("padding", self.padding.len())] {
            if length != rank {
                return Err(wrong(format!("{option}: expected {rank} values, one a spatial axis, got {length}")));
            }
        }
        if self.groups == 0 || self.offset_groups == 0 {
            return Err(wrong("groups: expected at least 1, got 0".into()));
        }
        let operation = Operation {
            stride: self.stride.clone(),
            dilation: self.dilation.clone(),
            pads: self.padding.iter().map(|&pad| (pad, pad)).collect(),
            groups: self.groups,
            offset_groups: self.offset_groups,
            ..Operation::new(self.op, &self.kernel)
        };
        let input = [&[self.batch, self.in_channels], self.spatial.as_slice()].concat();
        let plain = |first: usize, second: usize| [&[first, second / self.groups], self.kernel.as_slice()].concat();
        // An involution's weight follows from its output, which does not depend on it.
        let mut weight = match self.op {
            Operator::Conv | Operator::DeformConv => plain(self.out_channels, self.in_channels),
            Operator::ConvTranspose => plain(self.in_channels, self.out_channels),
            Operator::Involution => Vec::new(),
        };
        let output = operation.output_shape(&input, &weight)?;
        let taps = count(&self.kernel);
        let (mut offset, mut mask) = (None, None);
        if matches!(self.op, Operator::DeformConv | Operator::Involution) {
            let at_output = |channels: Option<usize>| match channels {
                Some(channels) => Ok(vec![self.batch, channels, output[2], output[3]]),
                None => Err(wrong("kernel: expected one whose elements can be counted".into())),
            };
            let maps = taps.and_then(|taps| taps.checked_mul(self.offset_groups));
            match self.op {
                Operator::Involution => weight = at_output(taps.and_then(|taps| taps.checked_mul(self.groups)))?,
                _ => {
                    offset = Some(at_output(maps.and_then(|maps| maps.checked_mul(2)))?);
                    mask = if self.mask { Some(at_output(maps)?) } else { None };
                }
            }
        }
        let mut elements = 0;
        for shape in [Some(&input), Some(&weight), Some(&output), offset.as_ref(), mask.as_ref()].into_iter().flatten()
        {
            let count = count(shape).filter(|&count| count <= i32::MAX as usize);
            elements +=
                count.ok_or_else(|| wrong(format!("a tensor of shape {shape:?} is larger than this crate takes")))?;
        }
        let product = |shape: &[usize]| shape.iter().map(|&extent| extent as f64).product::<f64>();
        let products = match self.op {
            Operator::Conv | Operator::DeformConv => product(&output) * product(&weight[1..]),
            Operator::ConvTranspose => product(&input) * product(&weight[1..]),
            Operator::Involution => product(&output) * product(&self.kernel),
        };
        Ok(Problem {
            operation,
            output,
            input,
            weight,
            offset,
            mask,
            flops: 2.0 * products,
            least_bytes: 4.0 * elements as f64,
        })
    }
}

impl Problem {
    /// Seeded arrays: reals in -1..1, offsets in -2..2, masks in 0..1.
    pub fn arrays(&self) -> Arrays {
        let array = |shape: &Vec<usize>, seed: u64, scale: f32, shift: f32| {
            let mut state = seed;
            ArrayD::from_shape_simple_fn(IxDyn(shape), || uniform(&mut state) * scale + shift)
        };
        Arrays {
            input: array(&self.input, 1, 2.0, -1.0),
            weight: array(&self.weight, 2, 2.0, -1.0),
            bias: None,
            offset: self.offset.as_ref().map(|shape| array(shape, 3, 4.0, -2.0)),
            mask: self.mask.as_ref().map(|shape| array(shape, 4, 1.0, 0.0)),
        }
    }
}

/// Product of extents, where it can be counted.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}

/// A real in 0..1.
fn uniform(state: &mut u64) -> f32 {
    (random(state) >> 40) as f32 / (1u64 << 24) as f32
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
