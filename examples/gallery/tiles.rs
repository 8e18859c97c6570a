//! The tiles of the sheet: what each applies to the photo, on the GPU and in the CPU reference side by side.

use image::RgbImage;
use wgconv::ndarray::{Array2, ArrayD, Ix4, s};
use wgconv::reference::{
    self, AvgPoolSpec, BorderMode, ConvSpec, ConvTransposeSpec, DeformSpec, InvolutionSpec, MaxPoolSpec,
};
use wgconv::reference::{ActivationKind, ReferenceError};
use wgconv::{Activation, AvgPool2d, Border, Conv2d, ConvTranspose2d, DeformConv2d, Gpu, Involution2d, MaxPool2d};
use wgconv::{Padding, Softmax, Tensor};

use super::common::{Result, difference};
use super::filters as f;
use super::photo::{Photo, colour, glow, gradient, grey, halves};

/// A chain of operators on a device.
pub type OnGpu = Box<dyn Fn(&Tensor) -> wgconv::Result<Tensor>>;
/// The same in the reference.
pub type OnCpu = Box<dyn Fn(ArrayD<f64>) -> Result<ArrayD<f64>, ReferenceError>>;
/// How a result becomes a picture.
pub type Show = fn(&ArrayD<f64>) -> RgbImage;

/// An operator, or a short chain, applied to a picture.
pub struct Tile {
    pub title: &'static str,
    /// The operators and their options, on two lines.
    pub options: [&'static str; 2],
    pub input: ArrayD<f32>,
    pub gpu: OnGpu,
    pub cpu: OnCpu,
    pub show: Show,
    /// How far GPU and reference may be apart.
    pub bound: f64,
    /// A kernel to draw in the tile's corner.
    pub taps: Option<Array2<f32>>,
}

/// What a tile gives.
pub struct Outcome {
    pub picture: RgbImage,
    /// `max |gpu - cpu|`, where there is a GPU.
    pub difference: Option<f64>,
}

impl Tile {
    /// Runs both sides and compares them; the picture is the GPU's where there is one.
    pub fn run(&self, gpu: Option<&Gpu>) -> Result<Outcome> {
        let want = (self.cpu)(double(&self.input))?;
        let Some(gpu) = gpu else {
            return Ok(Outcome { picture: (self.show)(&want), difference: None });
        };
        let got = double(&(self.gpu)(&Tensor::from_array(gpu, &self.input)?)?.to_array()?);
        Ok(Outcome { picture: (self.show)(&got), difference: Some(difference(&got, &want)) })
    }
}

/// All tiles but the photo itself, in the order of the sheet.
pub fn all(photo: &Photo) -> Vec<Tile> {
    let mut tiles = vec![sobel(photo)];
    tiles.extend([false, true].map(|flip| emboss(photo, flip)));
    tiles.extend([1, 2, 5].map(|rate| dilated(photo, rate)));
    tiles.extend([pointwise(photo), grouped(photo), depthwise(photo), involution(photo), poster(photo)]);
    tiles.extend([swirl(photo), fading(photo), brush(photo), dots(photo)]);
    tiles.extend([upsampled(photo, 4, false), upsampled(photo, 4, true), upsampled(photo, 2, true), sharpened(photo)]);
    tiles
}

fn double(array: &ArrayD<f32>) -> ArrayD<f64> {
    array.mapv(f64::from)
}

/// The bound of a sum of `products` products whose absolute values add up to at most `sum`: see the crate's promises on numerics.
/// All pictures lie in 0..1, and so an operator's `sum` is at most its filter's sum of absolute weights.
fn rounding(products: usize, sum: f64) -> f64 {
    f64::from(f32::EPSILON) * products as f64 * sum
}

/// The options of the reference for `padding` on all sides with the edge repeated.
fn same(padding: usize, groups: usize) -> ConvSpec {
    ConvSpec { pads: vec![(padding, padding); 2], groups, border: BorderMode::Replicate, ..ConvSpec::new(2) }
}

/// A tile of one convolution.
fn convolution(
    (title, options): (&'static str, [&'static str; 2]),
    (input, show): (ArrayD<f32>, Show),
    (w, bias): (ArrayD<f32>, f32),
    (op, spec): (Conv2d, ConvSpec),
) -> Tile {
    let bias = ArrayD::from_elem(vec![w.shape()[0]], bias);
    let bound = rounding(w.len() / w.shape()[0] + 1, f::gain(&w) + f64::from(bias[0]));
    let (w64, bias64) = (double(&w), double(&bias));
    let upload = Tensor::from_array::<_, wgconv::ndarray::IxDyn>;
    Tile {
        title,
        options,
        input,
        gpu: Box::new(move |x| {
            let (w, bias) = (upload(x.gpu(), &w)?, upload(x.gpu(), &bias)?);
            op.forward(x, &w, Some(&bias))
        }),
        cpu: Box::new(move |x| reference::conv(x.view(), w64.view(), Some(bias64.view()), &spec)),
        show,
        bound,
        taps: None,
    }
}

/// The first filter's plane, to be drawn; its taps `rate` apart.
fn drawn(w: &ArrayD<f32>, rate: usize) -> Option<Array2<f32>> {
    let plane = w.view().into_dimensionality::<Ix4>().ok()?;
    let (plane, reach) = (plane.slice(s![0, 0, .., ..]), rate * (w.shape()[2] - 1) + 1);
    let mut spread = Array2::from_elem((reach, reach), f32::NAN);
    spread.slice_mut(s![..;rate, ..;rate]).assign(&plane);
    Some(spread)
}

fn sobel(photo: &Photo) -> Tile {
    // Channel 0 becomes the derivative along x, channel 1 the one along y.
    let columns = f::weight([2, 1, 3, 1], |o, _, i, _| f::SOBEL[o][i]);
    let rows = f::weight([2, 1, 1, 3], |o, _, _, j| f::SOBEL[1 - o][j]);
    let (columns64, rows64) = (double(&columns), double(&rows));
    let spec = |pads, groups| ConvSpec { pads, groups, border: BorderMode::Replicate, ..ConvSpec::new(2) };
    Tile {
        title: "Sobel, two separable passes",
        options: ["Conv2d 3x1, then Conv2d 1x3 groups 2", "hue: direction, brightness: strength"],
        input: photo.luminance.clone(),
        gpu: Box::new(move |x| {
            let (columns, rows) = (Tensor::from_array(x.gpu(), &columns)?, Tensor::from_array(x.gpu(), &rows)?);
            let down = Conv2d::new().padding([1, 0]).border(Border::Replicate).forward(x, &columns, None)?;
            Conv2d::new().padding([0, 1]).border(Border::Replicate).groups(2).forward(&down, &rows, None)
        }),
        cpu: Box::new(move |x| {
            let down = reference::conv(x.view(), columns64.view(), None, &spec(vec![(1, 1), (0, 0)], 1))?;
            reference::conv(down.view(), rows64.view(), None, &spec(vec![(0, 0), (1, 1)], 2))
        }),
        show: gradient,
        bound: rounding(3 + 3, 1.0),
        taps: None,
    }
}

fn emboss(photo: &Photo, flip: bool) -> Tile {
    let w = f::emboss();
    let text = match flip {
        false => ("Correlation", ["Conv2d 5x5, border replicate", "emboss, the weight as it is stored"]),
        true => ("True convolution", ["Conv2d 5x5 with flip_kernel", "mirrored: hollows become ridges"]),
    };
    let op = Conv2d::new().padding(2).border(Border::Replicate).flip_kernel(flip);
    let spec = ConvSpec { flip_kernel: flip, ..same(2, 1) };
    // As it is applied.
    let taps = drawn(&w, 1).map(|plane| if flip { plane.slice_move(s![..;-1, ..;-1]) } else { plane });
    Tile { taps, ..convolution(text, (photo.luminance.clone(), grey), (w, 0.5), (op, spec)) }
}

fn dilated(photo: &Photo, rate: usize) -> Tile {
    let w = f::ridges();
    let text = match rate {
        1 => (
            "Dilated, rate 1",
            ["Conv2d 3x3, a bank of three ridges", "0\u{b0} red, 60\u{b0} green, 120\u{b0} blue; sees 3x3"],
        ),
        2 => ("Dilated, rate 2", ["Conv2d 3x3, dilation 2, the same bank", "coarser ridges; sees 5x5"]),
        _ => ("Dilated, rate 5", ["Conv2d 3x3, dilation 5, the same bank", "coarser still; sees 11x11"]),
    };
    let op = Conv2d::new().padding(rate).dilation(rate).border(Border::Replicate);
    let spec = ConvSpec { dilation: vec![rate; 2], ..same(rate, 1) };
    let taps = drawn(&w, rate);
    Tile { taps, ..convolution(text, (photo.luminance.clone(), glow), (w, 0.0), (op, spec)) }
}

fn pointwise(photo: &Photo) -> Tile {
    let text = ("Pointwise", ["Conv2d 1x1 [3, 3, 1, 1]", "a colour matrix turns every hue"]);
    let w = f::hue_matrix(0.42, 1.5);
    convolution(text, (photo.rgb.clone(), colour), (w, 0.0), (Conv2d::new(), ConvSpec::new(2)))
}

fn grouped(photo: &Photo) -> Tile {
    let text = ("Grouped", ["Conv2d 13x13, 6 channels, groups 2", "each group its own mix and smear"]);
    let op = Conv2d::new().padding(6).border(Border::Replicate).groups(2);
    convolution(text, (photo.twice(), halves), (f::crossed_smears(13), 0.0), (op, same(6, 2)))
}

/// The blur that [`involution`] is set beside: its window without its attention to edges.
fn depthwise(photo: &Photo) -> Tile {
    let text = ("Depthwise blur", ["Conv2d 9x9, groups 3", "one Gaussian for every pixel"]);
    let op = Conv2d::new().padding(4).border(Border::Replicate).groups(3);
    let w = f::depthwise(&f::gaussian(9, SIGMA));
    let taps = drawn(&w, 1);
    Tile { taps, ..convolution(text, (photo.rgb.clone(), colour), (w, 0.0), (op, same(4, 3))) }
}

const SIGMA: f32 = 2.6;

fn involution(photo: &Photo) -> Tile {
    let w = f::bilateral(&photo.luminance, 9, (SIGMA, 0.11));
    let w64 = double(&w);
    let spec = InvolutionSpec { pads: [(4, 4); 2], ..InvolutionSpec::new([9; 2]) };
    Tile {
        title: "Involution",
        options: ["Involution2d 9x9, a kernel per pixel", "smooths along edges, not across"],
        input: photo.rgb.clone(),
        gpu: Box::new(move |x| Involution2d::new().padding(4).forward(x, &Tensor::from_array(x.gpu(), &w)?, None)),
        cpu: Box::new(move |x| reference::involution2d(x.view(), w64.view(), None, &spec)),
        show: colour,
        bound: rounding(81, 1.01),
        taps: None,
    }
}

/// A soft choice among five inks by luminance.
fn poster(photo: &Photo) -> Tile {
    const SHARPNESS: f32 = 150.0;
    let ((near, bias), inks) = (f::nearness(SHARPNESS), f::inks());
    let (near64, bias64, inks64) = (double(&near), double(&bias), double(&inks));
    // An error in a score moves the mixture of inks by no more than itself; softmax and mixture add a few ulps.
    let score = rounding(2, f::gain(&near) + bias.iter().fold(0.0, |most, b| f64::max(most, f64::from(b.abs()))));
    Tile {
        title: "Softmax",
        options: ["Conv2d 1x1, Softmax over 5, Conv2d 1x1", "a soft choice among five inks"],
        input: photo.luminance.clone(),
        gpu: Box::new(move |x| {
            let [near, bias, inks] = [&near, &bias, &inks].map(|array| Tensor::from_array(x.gpu(), array));
            let scores = Conv2d::new().forward(x, &near?, Some(&bias?))?;
            Conv2d::new().forward(&Softmax::new(1).forward(&scores)?, &inks?, None)
        }),
        cpu: Box::new(move |x| {
            let plain = ConvSpec::new(2);
            let scores = reference::conv(x.view(), near64.view(), Some(bias64.view()), &plain)?;
            reference::conv(reference::softmax(scores.view(), 1)?.view(), inks64.view(), None, &plain)
        }),
        show: colour,
        bound: 2.0 * score,
        taps: None,
    }
}

fn swirl(photo: &Photo) -> Tile {
    let (offset, w) = (f::swirl(photo.size, 0.55), f::equal(3, 1, 1.0));
    deformable(
        ("Deformable v1", ["DeformConv2d 1x1, weight the identity", "offsets turn the middle: a swirl"]),
        photo,
        (offset, w, None),
        0,
    )
}

fn fading(photo: &Photo) -> Tile {
    let (offset, w) = (f::rays(photo.size, 0.16), f::equal(3, 3, 1.0 / 9.0));
    deformable(
        ("Deformable v2", ["DeformConv2d 3x3, taps along rays", "the mask fades from 1 to 0"]),
        photo,
        (offset, w, Some(f::fade(photo.size))),
        1,
    )
}

fn deformable(
    (title, options): (&'static str, [&'static str; 2]),
    photo: &Photo,
    (offset, w, mask): (ArrayD<f32>, ArrayD<f32>, Option<ArrayD<f32>>),
    padding: usize,
) -> Tile {
    let (offset64, w64, mask64) = (double(&offset), double(&w), mask.as_ref().map(double));
    let spec = DeformSpec { pads: [(padding, padding); 2], ..DeformSpec::new() };
    // Four neighbours a tap, their bilinear weights and the mask rounded in between.
    let bound = rounding(4 * w.len() / 3 + 8, f::gain(&w));
    Tile {
        title,
        options,
        input: photo.rgb.clone(),
        gpu: Box::new(move |x| {
            let upload = |array| Tensor::from_array(x.gpu(), array);
            let mask = mask.as_ref().map(upload).transpose()?;
            let op = DeformConv2d::new().padding(padding);
            op.forward(x, &upload(&offset)?, &upload(&w)?, None, mask.as_ref())
        }),
        cpu: Box::new(move |x| {
            let mask = mask64.as_ref().map(|mask| mask.view());
            reference::deform_conv2d(x.view(), offset64.view(), mask, w64.view(), None, &spec)
        }),
        show: colour,
        bound,
        taps: None,
    }
}

fn brush(photo: &Photo) -> Tile {
    Tile {
        title: "Max pool",
        options: ["MaxPool2d 7x7, stride 1, padding 3", "bright strokes grow"],
        input: photo.rgb.clone(),
        gpu: Box::new(|x| MaxPool2d::new(7).stride(1).padding(3).forward(x)),
        cpu: Box::new(|x| {
            let spec = MaxPoolSpec { stride: vec![1; 2], padding: vec![3; 2], ..MaxPoolSpec::new(&[7; 2]) };
            reference::max_pool(x.view(), &spec)
        }),
        show: colour,
        bound: 0.0,
        taps: None,
    }
}

fn dots(photo: &Photo) -> Tile {
    let w = f::dot(8);
    let w64 = double(&w);
    Tile {
        title: "Average pool and dots",
        options: ["AvgPool2d 8x8, ConvTranspose2d stride 8", "each mean stamps its 8x8 kernel"],
        input: photo.rgb.clone(),
        gpu: Box::new(move |x| {
            let means = AvgPool2d::new(8).forward(x)?;
            ConvTranspose2d::new().stride(8).groups(3).forward(&means, &Tensor::from_array(x.gpu(), &w)?, None)
        }),
        cpu: Box::new(move |x| {
            let means = reference::avg_pool(x.view(), &AvgPoolSpec::new(&[8; 2]))?;
            let spec = ConvTransposeSpec { stride: vec![8; 2], groups: 3, ..ConvTransposeSpec::new(2) };
            reference::conv_transpose(means.view(), w64.view(), None, &spec)
        }),
        show: colour,
        bound: rounding(64 + 2, 1.0),
        taps: None,
    }
}

/// A detail at `scale` times its size. It is taken with a margin of a pixel, and the padding cuts off what that becomes, so that
/// the tent has its neighbours at the rim too.
fn upsampled(photo: &Photo, scale: usize, smooth: bool) -> Tile {
    let (w, text) = match (scale, smooth) {
        (_, false) => (
            f::nearest(scale),
            ("Transposed 4x, nearest", ["ConvTranspose2d 4x4, stride 4", "kernel of ones: each pixel a square"]),
        ),
        (4, true) => (
            f::bilinear(scale),
            ("Transposed 4x, bilinear", ["ConvTranspose2d 8x8, stride 4", "kernel a tent: neighbours overlap"]),
        ),
        (_, true) => (
            f::bilinear(scale),
            ("Transposed 2x, bilinear", ["ConvTranspose2d 4x4, stride 2", "a larger detail, the same tent"]),
        ),
    };
    let padding = scale + (w.shape()[2] - scale) / 2;
    let spec = ConvTransposeSpec {
        stride: vec![scale; 2],
        pads: vec![(padding, padding); 2],
        groups: 3,
        ..ConvTransposeSpec::new(2)
    };
    let (w64, taps) = (double(&w), drawn(&w, 1));
    Tile {
        title: text.0,
        options: text.1,
        input: photo.detail(photo.size / scale + 2),
        gpu: Box::new(move |x| {
            let op = ConvTranspose2d::new().stride(scale).padding(padding).groups(3);
            op.forward(x, &Tensor::from_array(x.gpu(), &w)?, None)
        }),
        cpu: Box::new(move |x| reference::conv_transpose(x.view(), w64.view(), None, &spec)),
        show: colour,
        bound: rounding(4, 1.0),
        taps,
    }
}

fn sharpened(photo: &Photo) -> Tile {
    let w = f::unsharp(5, 1.2, 2.0);
    let (w64, bound) = (double(&w), rounding(25 + 1, f::gain(&w) + 1.0));
    Tile {
        title: "Fused epilogue",
        options: ["Conv2d 5x5 groups 3, residual, ReLU6", "photo plus its detail: unsharp mask"],
        input: photo.rgb.clone(),
        gpu: Box::new(move |x| {
            let op = Conv2d::new().padding(Padding::Same).border(Border::Replicate).groups(3);
            op.residual(x).activation(Activation::Relu6).forward(x, &Tensor::from_array(x.gpu(), &w)?, None)
        }),
        cpu: Box::new(move |x| {
            let detail = reference::conv(x.view(), w64.view(), None, &same(2, 3))?;
            reference::epilogue(detail, Some(x.view()), ActivationKind::Relu6)
        }),
        show: colour,
        bound,
        taps: None,
    }
}
