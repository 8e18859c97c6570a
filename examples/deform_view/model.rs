//! The weights written by hand, the layers that make offsets and masks with them, and the deformable layer itself: on the GPU and in
//! the CPU reference.
//!
//! 1. `blur` smooths the photo; `gradient` takes the luminance's derivatives, smoothed too.
//! 2. `sum` of their squares through tanh: edges, 0 where there is none, 1 on a strong one.
//! 3. `slope`, a wide derivative of the edges through tanh: at each place the way to the nearest edge.
//! 4. `shift`, a convolution with the deformable layer's own geometry: tap k's offset is the way to the edge at tap k's place. This is
//!    the layer that predicts offsets in Dai et al. 2017.
//! 5. `pick`, a deformable convolution that hands out the samples as they are, less the colour at the output's own place; `judge`, a
//!    1x1 convolution of their squares through a sigmoid: the mask, small where a sample's colour is another.

use wgconv::ndarray::{ArrayD, ArrayViewD};
use wgconv::reference::{self, ActivationKind, BorderMode, ConvSpec, DeformSpec, conv, deform_conv2d, epilogue, mul};
use wgconv::{Activation, Border, Conv2d, DeformConv2d, Gpu, Mul, Tensor};

use super::common::{Result, difference};
use super::filters::{equal, gaussian, weight};
use super::view::Cell;

/// Kernel and dilation along both axes. The padding is such that outputs lie where inputs do.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Odd.
    pub kernel: usize,
    pub dilation: usize,
}

impl Geometry {
    fn padding(self) -> usize {
        self.dilation * (self.kernel - 1) / 2
    }

    fn taps(self) -> usize {
        self.kernel * self.kernel
    }

    /// Elements along each axis that a window spans.
    pub fn reach(self) -> usize {
        2 * self.padding() + 1
    }
}

/// What a deformable layer is given: offsets `[1, 2*K*K, H, W]` and, in version 2, masks `[1, K*K, H, W]`.
pub struct Field {
    pub offset: ArrayD<f32>,
    pub mask: Option<ArrayD<f32>>,
}

/// One tap of one output; positions are (y, x) in elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Where the tap would be without an offset.
    pub regular: (f32, f32),
    /// Where it samples.
    pub at: (f32, f32),
    /// By what the sample is multiplied; 1 without a mask.
    pub mask: f32,
}

/// What `DeformConv2d` samples for the output at a place, tap by tap: `p - pad + k*dilation + offset`, one f32 addition as there.
pub fn samples(geometry: Geometry, field: &Field, (row, column): Cell) -> Vec<Sample> {
    let Geometry { kernel, dilation } = geometry;
    let regular = |p: usize, k: usize| (p + k * dilation) as f32 - geometry.padding() as f32;
    let sample = |k: usize| {
        let regular = (regular(row, k / kernel), regular(column, k % kernel));
        let offset = |axis| field.offset[[0, 2 * k + axis, row, column]];
        let mask = field.mask.as_ref().map_or(1.0, |mask| mask[[0, k, row, column]]);
        Sample { regular, at: (regular.0 + offset(0), regular.1 + offset(1)), mask }
    };
    (0..geometry.taps()).map(sample).collect()
}

/// What the first layers make.
pub struct Made {
    /// How strong an edge there is, `[1, 1, H, W]`.
    pub edges: ArrayD<f32>,
    /// The way to the nearest edge, `[1, 2, H, W]`, as a share of [`FARTHEST`].
    pub slope: ArrayD<f32>,
    pub offset: ArrayD<f32>,
    pub mask: ArrayD<f32>,
}

impl Made {
    /// Where there is something to see, `[1, 1, H, W]`: on plain ground beside an edge.
    pub fn interest(&self) -> ArrayD<f32> {
        ArrayD::from_shape_fn(self.edges.raw_dim(), |i| {
            let way = |axis| self.slope[[0, axis, i[2], i[3]]];
            f32::hypot(way(0), way(1)) * (1.0 - self.edges[&i]).powi(2)
        })
    }

    /// The largest differences of offsets and of masks.
    pub fn differences(&self, other: &Self) -> [f64; 2] {
        [(&self.offset, &other.offset), (&self.mask, &other.mask)]
            .map(|(a, b)| difference(&a.mapv(f64::from), &b.mapv(f64::from)))
    }
}

/// The layers' weights, in the order of the module's description.
pub struct Model {
    geometry: Geometry,
    blur: ArrayD<f32>,
    gradient: ArrayD<f32>,
    sum: ArrayD<f32>,
    slope: ArrayD<f32>,
    shift: ArrayD<f32>,
    pick: ArrayD<f32>,
    /// Takes the colour at the output's own place away.
    centre: ArrayD<f32>,
    judge: ArrayD<f32>,
    judge_bias: ArrayD<f32>,
    /// The deformable layer's: each colour's mean over the taps.
    mean: ArrayD<f32>,
}

/// Padding of kernels whose outputs lie where their inputs do.
fn half(weight: &ArrayD<f32>) -> usize {
    weight.shape()[2] / 2
}

/// From here on an edge is a strong one: luminance an element.
const STRONG: f32 = 0.045;
/// Spread of the edges' slope, and the farthest that it moves a tap; elements.
const PULL: f32 = 3.6;
const FARTHEST: f32 = 7.0;
/// Distance of colours, each channel in 0..1, at which the mask is one half.
const ALIKE: f32 = 0.2;

impl Model {
    /// Writes the weights.
    pub fn new(geometry: Geometry) -> Self {
        let (kernel, taps) = (geometry.kernel, geometry.taps());
        let plane = |size: usize, sigma: f32| {
            let plane = gaussian(size, sigma);
            weight([3, 1, size, size], move |_, _, i, j| plane[[i, j]])
        };
        let luminance = [0.299, 0.587, 0.114];
        // Derivatives along y and x: that of a Gaussian is -x/sigma^2 times it, and a correlation turns the sign round.
        let derivative = |size: usize, sigma: f32| {
            let plane = gaussian(size, sigma);
            move |axis: usize, i: usize, j: usize| {
                ([i, j][axis] as f32 - (size / 2) as f32) / (sigma * sigma) * plane[[i, j]]
            }
        };
        let (fine, wide) = (derivative(9, 1.4), derivative(21, PULL));
        // A tap at a distance s of one line moves by about s, and less from afar.
        let gain = 0.9 * PULL.powi(3) / FARTHEST;
        let one_hot = |o: usize, i: usize, j: usize| if o % taps == i * kernel + j { 1.0 } else { 0.0 };
        Self {
            geometry,
            blur: plane(7, 1.5),
            gradient: weight([2, 3, 9, 9], |o, c, i, j| luminance[c] * fine(o, i, j)),
            sum: weight([1, 2, 1, 1], |_, _, _, _| 1.0 / (STRONG * STRONG)),
            slope: weight([2, 1, 21, 21], |o, _, i, j| gain * wide(o, i, j)),
            shift: weight([2 * taps, 2, kernel, kernel], |o, c, i, j| {
                if o % 2 == c { FARTHEST * one_hot(o / 2, i, j) } else { 0.0 }
            }),
            pick: weight([3 * taps, 1, kernel, kernel], |o, _, i, j| one_hot(o, i, j)),
            centre: weight([3 * taps, 3, 1, 1], |o, c, _, _| if o / taps == c { -1.0 } else { 0.0 }),
            judge: weight(
                [taps, 3 * taps, 1, 1],
                |o, c, _, _| {
                    if c % taps == o { -4.0 / (ALIKE * ALIKE) } else { 0.0 }
                },
            ),
            judge_bias: ArrayD::from_elem(vec![taps], 4.0),
            mean: equal(3, kernel, 1.0 / taps as f32),
        }
    }

    fn deform(&self) -> DeformConv2d {
        DeformConv2d::new().padding(self.geometry.padding()).dilation(self.geometry.dilation)
    }

    fn deform_spec(&self) -> DeformSpec {
        let (padding, dilation) = (self.geometry.padding(), self.geometry.dilation);
        DeformSpec { pads: [(padding, padding); 2], dilation: [dilation; 2], ..DeformSpec::new() }
    }

    /// Offsets and masks of a photo on the GPU.
    pub fn on_gpu(&self, gpu: &Gpu, rgb: &ArrayD<f32>) -> Result<Made> {
        let upload = |array: &ArrayD<f32>| Tensor::from_array(gpu, array);
        let same = |weight| Conv2d::new().padding(half(weight)).border(Border::Replicate);
        let rgb = upload(rgb)?;
        let smooth = same(&self.blur).groups(3).forward(&rgb, &upload(&self.blur)?, None)?;
        let gradient = same(&self.gradient).forward(&rgb, &upload(&self.gradient)?, None)?;
        let squares = Mul::new().forward(&gradient, &gradient)?;
        let edges = Conv2d::new().activation(Activation::Tanh).forward(&squares, &upload(&self.sum)?, None)?;
        let slope = same(&self.slope).activation(Activation::Tanh).forward(&edges, &upload(&self.slope)?, None)?;
        let shift = Conv2d::new().padding(self.geometry.padding()).dilation(self.geometry.dilation);
        let offset = shift.forward(&slope, &upload(&self.shift)?, None)?;
        let centre = Conv2d::new().forward(&smooth, &upload(&self.centre)?, None)?;
        let pick = self.deform().groups(3).residual(&centre);
        let other = pick.forward(&smooth, &offset, &upload(&self.pick)?, None, None)?;
        let squares = Mul::new().forward(&other, &other)?;
        let judge = Conv2d::new().activation(Activation::Sigmoid);
        let mask = judge.forward(&squares, &upload(&self.judge)?, Some(&upload(&self.judge_bias)?))?;
        Ok(Made {
            edges: edges.to_array()?,
            slope: slope.to_array()?,
            offset: offset.to_array()?,
            mask: mask.to_array()?,
        })
    }

    /// The same in the reference.
    pub fn on_reference(&self, rgb: &ArrayD<f32>) -> Result<Made> {
        let (padding, dilation) = (self.geometry.padding(), self.geometry.dilation);
        let same = |weight, groups| {
            let pads = vec![(half(weight), half(weight)); 2];
            ConvSpec { pads, groups, border: BorderMode::Replicate, ..ConvSpec::new(2) }
        };
        let through = |x: &ArrayD<f64>, w: &ArrayD<f32>, spec: &ConvSpec, kind| {
            epilogue(conv(x.view(), w.mapv(f64::from).view(), None, spec)?, none(), kind)
        };
        let (plain, identity) = (ConvSpec::new(2), ActivationKind::Identity);
        let rgb = rgb.mapv(f64::from);
        let smooth = through(&rgb, &self.blur, &same(&self.blur, 3), identity)?;
        let gradient = through(&rgb, &self.gradient, &same(&self.gradient, 1), identity)?;
        let squares = mul(gradient.view(), gradient.view())?;
        let edges = through(&squares, &self.sum, &plain, ActivationKind::Tanh)?;
        let slope = through(&edges, &self.slope, &same(&self.slope, 1), ActivationKind::Tanh)?;
        let shift = ConvSpec { pads: vec![(padding, padding); 2], dilation: vec![dilation; 2], ..ConvSpec::new(2) };
        let offset = through(&slope, &self.shift, &shift, identity)?;
        let centre = through(&smooth, &self.centre, &plain, identity)?;
        let spec = DeformSpec { groups: 3, ..self.deform_spec() };
        let pick = self.pick.mapv(f64::from);
        let other = deform_conv2d(smooth.view(), offset.view(), None, pick.view(), None, &spec)?;
        let other = epilogue(other, Some(centre.view()), identity)?;
        let squares = mul(other.view(), other.view())?;
        let (judge, bias) = (self.judge.mapv(f64::from), self.judge_bias.mapv(f64::from));
        let judged = conv(squares.view(), judge.view(), Some(bias.view()), &plain)?;
        let mask = epilogue(judged, none(), ActivationKind::Sigmoid)?;
        let single = |array: ArrayD<f64>| array.mapv(|value| value as f32);
        Ok(Made { edges: single(edges), slope: single(slope), offset: single(offset), mask: single(mask) })
    }

    /// Runs the deformable layer with given offsets and masks and compares it with the reference: the largest difference, where there
    /// is a GPU.
    pub fn layer_difference(&self, rgb: &ArrayD<f32>, field: &Field, gpu: Option<&Gpu>) -> Result<Option<f64>> {
        let Some(gpu) = gpu else { return Ok(None) };
        let upload = |array: &ArrayD<f32>| Tensor::from_array(gpu, array);
        let mask = field.mask.as_ref().map(upload).transpose()?;
        let got =
            self.deform().forward(&upload(rgb)?, &upload(&field.offset)?, &upload(&self.mean)?, None, mask.as_ref())?;
        let mask = field.mask.as_ref().map(|mask| mask.view());
        let spec = self.deform_spec();
        let want = reference::deform_conv2d(rgb.view(), field.offset.view(), mask, self.mean.view(), None, &spec)?;
        Ok(Some(difference(&got.to_array()?.mapv(f64::from), &want)))
    }

    /// How far GPU and reference may be apart: four neighbours a tap, their weights and the mask rounded in between, and values and
    /// masks of at most 1.
    pub fn bound(&self) -> f64 {
        f64::from(f32::EPSILON) * (4 * 3 * self.geometry.taps() + 8) as f64
    }
}

fn none<'a>() -> Option<ArrayViewD<'a, f64>> {
    None
}
