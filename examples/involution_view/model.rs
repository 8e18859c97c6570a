//! The weights written by hand, the features that the layer is given, and the layer: on the GPU and in the CPU reference.
//!
//! 1. `gradient`: the luminance's derivatives. The products of the two, smoothed, are the structure tensor.
//! 2. `direct`, a 1x1 convolution: how well the tensor fits an edge of each of six directions, and a constant for plain ground. A
//!    softmax makes shares of them that add up to 1.
//! 3. The layer's input has two groups of six channels: red, green, blue and three of the six shares.
//! 4. The layer: `reduce` with its batch norm and ReLU takes out the shares that are more than a quarter; `span` adds up a kernel: a
//!    plain one where all are 0, and for each share what leads to the kernel of its direction.

use std::f32::consts::PI;

use wgconv::ndarray::{Array2, ArrayD, ArrayViewD, Ix2, s};
use wgconv::reference::{
    self, BatchNormParams, BorderMode, ConvSpec, InvolutionLayerSpec, InvolutionSpec, conv, mul, softmax,
};
use wgconv::{
    BatchNorm, Border, Conv2d, Gpu, Involution2d, InvolutionLayer, InvolutionLayerWeights, Mul, Softmax, Tensor,
};

use super::common::{Error, Result, difference};
use super::filters::{gain, gaussian, weight};
use super::view::Cell;

/// Directions of edges, 30 degrees apart.
const DIRECTIONS: usize = 6;
pub const GROUPS: usize = 2;
/// Red, green, blue and three shares.
const GROUP: usize = 6;
const CHANNELS: usize = GROUPS * GROUP;
/// Scale of the scores, and the score of plain ground.
const SHARPNESS: f32 = 3000.0;
const PLAIN: f32 = 2.5;
/// Shares up to this one count for nothing.
const LEAST: f32 = 0.25;
/// What batch norm adds to the variance.
const EPS: f64 = 1e-5;

/// The layers' weights.
pub struct Model {
    kernel: usize,
    gradient: ArrayD<f32>,
    /// Two 1x1 convolutions whose outputs' product is (xx, xy, yy) of the gradient (y, x).
    factors: [ArrayD<f32>; 2],
    blur: ArrayD<f32>,
    direct: ArrayD<f32>,
    direct_bias: ArrayD<f32>,
    /// Photo and shares to their channels.
    copy: [ArrayD<f32>; 2],
    reduce: ArrayD<f32>,
    norm: [ArrayD<f32>; 4],
    span: ArrayD<f32>,
    span_bias: ArrayD<f32>,
}

/// A Gaussian of two widths, the first one along the direction `d`; its sum is 1.
fn turned(kernel: usize, d: usize, (along, across): (f32, f32)) -> Array2<f32> {
    let (sin, cos) = angle(d).sin_cos();
    let middle = (kernel / 2) as f32;
    let plane = Array2::from_shape_fn((kernel, kernel), |(i, j)| {
        let (y, x) = (i as f32 - middle, j as f32 - middle);
        let (u, v) = ((x * cos + y * sin) / along, (y * cos - x * sin) / across);
        (-(u * u + v * v) / 2.0).exp()
    });
    let total = plane.sum();
    plane / total
}

/// The direction of an edge, from the x axis towards y.
fn angle(d: usize) -> f32 {
    d as f32 * PI / DIRECTIONS as f32
}

/// The kernel of a group on plain ground: a wide Gaussian, or the pixel itself a little sharpened.
fn plain(kernel: usize, group: usize) -> Array2<f32> {
    let wide = gaussian(kernel, 0.22 * kernel as f32);
    match group {
        0 => wide,
        _ => {
            let mut sharp = wide * -0.4;
            sharp[[kernel / 2, kernel / 2]] += 1.4;
            sharp
        }
    }
}

/// The kernel of a group on an edge of a direction: a mean along it, or a mean along it less what lies beside it.
fn on_edge(kernel: usize, group: usize, d: usize) -> Array2<f32> {
    let size = kernel as f32;
    match group {
        0 => turned(kernel, d, (0.3 * size, 0.07 * size)),
        _ => {
            let (ridge, beside) =
                (turned(kernel, d, (0.16 * size, 0.06 * size)), turned(kernel, d, (0.16 * size, 0.2 * size)));
            ridge * 3.0 - beside * 2.0
        }
    }
}

impl Model {
    /// Writes the weights.
    pub fn new(kernel: usize) -> Self {
        let luminance = [0.299, 0.587, 0.114];
        let (fine, smooth) = (gaussian(7, 1.0), gaussian(11, 1.6));
        // The direction across an edge is (-sin, cos) in (x, y): its share of the tensor, a quadratic form.
        let form = |d: usize| {
            let (sin, cos) = angle(d).sin_cos();
            [sin * sin, -2.0 * sin * cos, cos * cos]
        };
        let bias = |o: [usize; 1]| if o[0] == DIRECTIONS { PLAIN } else { 0.0 };
        let taps = kernel * kernel;
        let share = |d: usize| d / 3 * GROUP + 3 + d % 3;
        let kernels = |group| (0..DIRECTIONS).map(move |d| on_edge(kernel, group, d) - plain(kernel, group));
        let steps: Vec<Vec<Array2<f32>>> = (0..GROUPS).map(|group| kernels(group).collect()).collect();
        let vector = |value: f32| ArrayD::from_elem(vec![DIRECTIONS], value);
        Self {
            kernel,
            gradient: weight([2, 3, 7, 7], |o, c, i, j| luminance[c] * ([i, j][o] as f32 - 3.0) * fine[[i, j]]),
            factors: [[1, 1, 0], [1, 0, 0]]
                .map(|which| weight([3, 2, 1, 1], |o, c, _, _| if c == which[o] { 1.0 } else { 0.0 })),
            blur: weight([3, 1, 11, 11], |_, _, i, j| smooth[[i, j]]),
            direct: weight(
                [DIRECTIONS + 1, 3, 1, 1],
                |o, c, _, _| {
                    if o < DIRECTIONS { SHARPNESS * form(o)[c] } else { 0.0 }
                },
            ),
            direct_bias: ArrayD::from_shape_fn(vec![DIRECTIONS + 1], |i| bias([i[0]])),
            copy: [
                weight([CHANNELS, 3, 1, 1], |o, c, _, _| if o % GROUP == c { 1.0 } else { 0.0 }),
                weight(
                    [CHANNELS, DIRECTIONS + 1, 1, 1],
                    |o, c, _, _| {
                        if c < DIRECTIONS && o == share(c) { 1.0 } else { 0.0 }
                    },
                ),
            ],
            reduce: weight([DIRECTIONS, CHANNELS, 1, 1], |o, c, _, _| if c == share(o) { 1.0 } else { 0.0 }),
            // (share - LEAST) / (1 - LEAST), as a batch norm of variance 1 - EPS has it.
            norm: [vector(1.0 / (1.0 - LEAST)), vector(0.0), vector(LEAST), vector((1.0 - EPS) as f32)],
            span: weight([GROUPS * taps, DIRECTIONS, 1, 1], |o, c, _, _| {
                let (group, tap) = (o / taps, o % taps);
                steps[group][c][[tap / kernel, tap % kernel]]
            }),
            span_bias: ArrayD::from_shape_fn(vec![GROUPS * taps], |i| {
                plain(kernel, i[0] / taps)[[i[0] % taps / kernel, i[0] % kernel]]
            }),
        }
    }

    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// The layer in a line.
    pub fn describe(&self) -> String {
        format!("InvolutionLayer {0}x{0}, {GROUPS} groups of {GROUP} channels", self.kernel)
    }

    /// What the layer is given, `[1, 12, H, W]`: on the GPU where there is one.
    pub fn features(&self, rgb: &ArrayD<f32>, gpu: Option<&Gpu>) -> Result<ArrayD<f32>> {
        let Some(gpu) = gpu else { return Ok(self.features_by_reference(rgb)?.mapv(|value| value as f32)) };
        let upload = |array: &ArrayD<f32>| Tensor::from_array(gpu, array);
        let same = |weight: &ArrayD<f32>| Conv2d::new().padding(weight.shape()[2] / 2).border(Border::Replicate);
        let rgb = upload(rgb)?;
        let gradient = same(&self.gradient).forward(&rgb, &upload(&self.gradient)?, None)?;
        let [a, b] = self.factors.each_ref().map(|factor| Conv2d::new().forward(&gradient, &upload(factor)?, None));
        let tensor = same(&self.blur).groups(3).forward(&Mul::new().forward(&a?, &b?)?, &upload(&self.blur)?, None)?;
        let scores = Conv2d::new().forward(&tensor, &upload(&self.direct)?, Some(&upload(&self.direct_bias)?))?;
        let shares = Conv2d::new().forward(&Softmax::new(1).forward(&scores)?, &upload(&self.copy[1])?, None)?;
        Ok(Conv2d::new().residual(&shares).forward(&rgb, &upload(&self.copy[0])?, None)?.to_array()?)
    }

    /// The same in the reference.
    pub fn features_by_reference(&self, rgb: &ArrayD<f32>) -> Result<ArrayD<f64>> {
        let double = |array: &ArrayD<f32>| array.mapv(f64::from);
        let plain = ConvSpec::new(2);
        let same = |weight: &ArrayD<f32>, groups| {
            let pads = vec![(weight.shape()[2] / 2, weight.shape()[2] / 2); 2];
            ConvSpec { pads, groups, border: BorderMode::Replicate, ..ConvSpec::new(2) }
        };
        let through = |x: ArrayViewD<f64>, w: &ArrayD<f32>, spec: &ConvSpec| conv(x, double(w).view(), None, spec);
        let rgb = double(rgb);
        let gradient = through(rgb.view(), &self.gradient, &same(&self.gradient, 1))?;
        let [a, b] = self.factors.each_ref().map(|factor| through(gradient.view(), factor, &plain));
        let tensor = through(mul(a?.view(), b?.view())?.view(), &self.blur, &same(&self.blur, 3))?;
        let (direct, bias) = (double(&self.direct), double(&self.direct_bias));
        let scores = conv(tensor.view(), direct.view(), Some(bias.view()), &plain)?;
        let shares = through(softmax(scores.view(), 1)?.view(), &self.copy[1], &plain)?;
        Ok(through(rgb.view(), &self.copy[0], &plain)? + shares)
    }

    /// For each direction, and in the end for plain ground, how clearly each place is of that kind: `[1, 1, H, W]`.
    pub fn clearness(&self, features: &ArrayD<f32>) -> Vec<ArrayD<f32>> {
        let share = |d: usize| features.slice(s![.., d / 3 * GROUP + 3 + d % 3..;CHANNELS, .., ..]).into_dyn();
        let any = (0..DIRECTIONS).map(share).fold(ArrayD::zeros(share(0).raw_dim()), |sum, share| sum + share);
        // Five directions leave one place for plain ground.
        let edges = [0, 3, 1, 5, 4].map(|d| share(d).to_owned());
        edges.into_iter().chain([any.mapv(|any: f32| 1.0 - any)]).collect()
    }

    fn involution(&self) -> Involution2d {
        Involution2d::new().kernel_size(self.kernel).padding(self.kernel / 2).groups(GROUPS)
    }

    /// The layer on the GPU.
    pub fn on_gpu(&self, gpu: &Gpu, features: &ArrayD<f32>) -> Result<Layer> {
        let [gamma, beta, mean, var] = self.norm.each_ref().map(|vector| vector.view());
        let weights = InvolutionLayerWeights {
            reduce: self.reduce.view(),
            norm: BatchNorm { gamma, beta, mean, var, eps: EPS },
            span: self.span.view(),
            span_bias: Some(self.span_bias.view()),
        };
        let layer = InvolutionLayer::new(gpu, self.involution(), &weights)?;
        let features = Tensor::from_array(gpu, features)?;
        let (kernels, output) = (layer.weight(&features)?, layer.forward(&features)?);
        let double = |tensor: &Tensor| Ok::<_, Error>(tensor.to_array()?.mapv(f64::from));
        Ok(Layer { kernel: self.kernel, kernels: double(&kernels)?, output: double(&output)? })
    }

    /// The same in the reference.
    pub fn on_reference(&self, features: &ArrayD<f32>) -> Result<Layer> {
        let pads = [(self.kernel / 2, self.kernel / 2); 2];
        let inv = InvolutionSpec { pads, groups: GROUPS, ..InvolutionSpec::new([self.kernel; 2]) };
        let spec = InvolutionLayerSpec { inv, eps: EPS };
        let [gamma, beta, mean, var] = self.norm.each_ref().map(|vector| vector.view());
        let norm = BatchNormParams { gamma, beta, mean, var };
        let (reduce, span, bias) = (self.reduce.view(), self.span.view(), Some(self.span_bias.view()));
        let kernels = reference::involution_layer_weight(features.view(), reduce, norm, span, bias, &spec)?;
        let x = features.mapv(f64::from);
        let output = reference::involution2d(x.view(), kernels.view(), None, &spec.inv)?;
        Ok(Layer { kernel: self.kernel, kernels, output })
    }
}

/// What the layer makes of its input.
pub struct Layer {
    kernel: usize,
    /// `[1, groups*K*K, H, W]`
    kernels: ArrayD<f64>,
    /// `[1, 12, H, W]`
    output: ArrayD<f64>,
}

/// A kernel at a pixel.
pub struct Kernel(pub Array2<f64>);

impl Kernel {
    /// The weight of the largest magnitude.
    pub fn most(&self) -> f64 {
        self.0.iter().fold(0.0, |most, weight| f64::max(most, weight.abs()))
    }

    /// Least and largest weight.
    pub fn range(&self) -> String {
        let (least, most) = self.0.iter().fold((f64::MAX, f64::MIN), |(a, b), &weight| (a.min(weight), b.max(weight)));
        // No minus before zeros.
        let zeroed = |value: f64| if value.abs() < 0.0005 { 0.0 } else { value };
        format!("{:.3} to {:.3}", zeroed(least), zeroed(most))
    }
}

impl Layer {
    /// The kernel of a group at a pixel.
    pub fn kernel(&self, group: usize, (row, column): Cell) -> Kernel {
        let taps = self.kernel * self.kernel;
        let first = group * taps;
        let weight = |(i, j)| self.kernels[[0, first + i * self.kernel + j, row, column]];
        Kernel(Array2::from_shape_fn((self.kernel, self.kernel), weight))
    }

    /// The three colours that a group makes, `[1, 3, H, W]`.
    pub fn colours(&self, group: usize) -> ArrayD<f64> {
        self.output.slice(s![.., group * GROUP..group * GROUP + 3, .., ..]).to_owned().into_dyn()
    }

    /// Compares with the reference and says how far the two are apart.
    ///
    /// # Errors
    /// More than the bound: that of the chain of sums, each rounded by as much as its products are long, and the later ones moved by
    /// what the earlier ones are off.
    pub fn compare(&self, want: &Self, model: &Model, features: &ArrayD<f32>) -> Result<String> {
        let eps = f64::from(f32::EPSILON);
        let largest = features.iter().fold(0.0, |most, value| f64::max(most, f64::from(value.abs())));
        let hidden = (largest + 1.0) / f64::from(1.0 - LEAST);
        let bias = model.span_bias.iter().fold(0.0, |most, value| f64::max(most, f64::from(value.abs())));
        let step = gain(&model.span);
        let kernels =
            eps * step * hidden * (CHANNELS + 4) as f64 + eps * (DIRECTIONS + 2) as f64 * (step * hidden + bias);
        let taps = (self.kernel * self.kernel) as f64;
        let sums = want.kernels.clone().into_shape_with_order((
            GROUPS,
            taps as usize,
            want.kernels.len() / GROUPS / taps as usize,
        ));
        let sum = sums.map_or(f64::INFINITY, |kernels| {
            let absolute = kernels.mapv(f64::abs).sum_axis(wgconv::ndarray::Axis(1));
            absolute.into_dimensionality::<Ix2>().map_or(f64::INFINITY, |sums| sums.iter().copied().fold(0.0, f64::max))
        });
        let output = largest * (eps * taps * sum + taps * kernels);
        let off = [difference(&self.kernels, &want.kernels), difference(&self.output, &want.output)];
        if off[0] <= kernels && off[1] <= output {
            return Ok(format!("max |gpu - cpu| = {:.1e} in the kernels, {:.1e} in the output", off[0], off[1]));
        }
        let reason = format!("GPU and reference differ by {off:?}, bounds {kernels:.1e} and {output:.1e}");
        Err(Error::Failed(reason))
    }
}
