//! The reference composed in f64, with a bound that travels along: how far the device's f32 may be from it after each layer.

use ndarray::{Array1, ArrayD, Axis, IxDyn, Zip};
use wgconv::blocks::{Parameters, Seeded};
use wgconv::reference::{
    ActivationKind, ConvSpec, DeformSpec, InvolutionSpec, apply, batch_norm, conv, deform_conv2d, involution2d, softmax,
};
use wgconv::{Conv2d, ConvKernel, Tensor, ndarray};

use crate::common::{assert_bounded, gpu};

/// Half an ulp of 1.
pub const U: f64 = f32::EPSILON as f64 / 2.0;
/// What is of second order, and denormals.
const MORE: f64 = 1.001;
const TINY: f64 = 1e-30;

pub const PARAMS: Seeded = Seeded(7);
pub const EPS: f64 = 1e-5;

pub fn get(name: &str, shape: &[usize]) -> ArrayD<f32> {
    PARAMS.get(name, shape).expect("seeded")
}

pub fn wide(array: &ArrayD<f32>) -> ArrayD<f64> {
    array.mapv(f64::from)
}

/// What stands behind a convolution: a bias by name, or a batch norm by name and its epsilon.
pub enum After<'a> {
    Nothing,
    Bias(&'a str),
    Norm(&'a str, f64),
}

/// Values `y` and, element by element, a bound `e` on what the device's differ from them by.
#[derive(Clone)]
pub struct Near {
    pub y: ArrayD<f64>,
    pub e: ArrayD<f64>,
}

impl Near {
    /// An input, which the device has exactly.
    pub fn exact(x: &ArrayD<f32>) -> Self {
        Self { y: wide(x), e: ArrayD::zeros(x.raw_dim()) }
    }

    /// The largest absolute value that the device can have.
    fn grown(&self) -> ArrayD<f64> {
        self.y.mapv(f64::abs) + &self.e
    }

    /// What moves elements or takes the greatest does the same to bounds.
    pub fn both(&self, f: impl Fn(&ArrayD<f64>) -> ArrayD<f64>) -> Self {
        Self { y: f(&self.y), e: f(&self.e) }
    }

    /// A convolution and what stands behind it, before the residual and the activation.
    ///
    /// With `|x' - x| <= e` the sum over exact weights moves by `|w| * e` at most. A kernel of n products rounds at most n times on the
    /// way of each, and folding rounds weight and bias once: `(n + 1)*u*|w|*(|x| + e)` more, n the products and the bias. Where a 3x3
    /// goes through Winograd's F(2x2, 3x3) its own bound (tests/it/winograd.rs) is `(C/G + 13)*u` times 4 times the window's sum of |x|
    /// times the kernel's sum of |w|. All is scaled as the batch norm scales.
    pub fn conv(&self, weight: &ArrayD<f32>, after: After<'_>, spec: &ConvSpec) -> Self {
        let (w, grown) = (wide(weight), self.grown());
        let aw = w.mapv(f64::abs);
        let run = |x: &ArrayD<f64>, w: &ArrayD<f64>| conv(x.view(), w.view(), None, spec).expect("reference");
        let (cg, n) = (weight.shape()[1] as f64, (weight.len() / weight.shape()[0] + 2) as f64);
        let mut e = run(&self.e, &aw);
        let mut rounding = run(&grown, &aw) * (n * U);
        if winograd(self.y.shape(), weight.shape(), spec) {
            let sums = aw.sum_axis(Axis(3)).sum_axis(Axis(2));
            let spread = ArrayD::from_shape_fn(aw.raw_dim(), |i| sums[[i[0], i[1]]]);
            rounding = run(&grown, &spread) * (4.0 * (cg + 14.0) * U);
        }
        e += &rounding;
        let c_out = weight.shape()[0];
        let vector = |name: String| get(&name, &[c_out]);
        let plain = run(&self.y, &w);
        let (y, scale, shift) = match after {
            After::Nothing => (plain, Array1::ones(c_out), Array1::zeros(c_out)),
            After::Bias(name) => {
                let bias = wide(&vector(format!("{name}.bias"))).into_dimensionality().expect("a vector");
                let y = conv(self.y.view(), w.view(), Some(bias.view().into_dyn()), spec).expect("reference");
                (y, Array1::ones(c_out), bias.mapv(f64::abs))
            }
            After::Norm(name, eps) => {
                let [gamma, beta, mean, var] = ["weight", "bias", "running_mean", "running_var"]
                    .map(|part| wide(&vector(format!("{name}.{part}"))));
                let y = batch_norm(plain.view(), gamma.view(), beta.view(), mean.view(), var.view(), eps);
                let scale = Array1::from_shape_fn(c_out, |c| (gamma[c] / (var[c] + eps).sqrt()).abs());
                let shift = Array1::from_shape_fn(c_out, |c| beta[c].abs() + mean[c].abs() * scale[c]);
                (y.expect("reference"), scale, shift)
            }
        };
        for (c, mut channel) in e.axis_iter_mut(Axis(1)).enumerate() {
            channel.mapv_inplace(|e| (e * scale[c] + n * U * shift[c]) * MORE + TINY);
        }
        Self { y, e }
    }

    /// The residual, which kernels add last: one rounding.
    pub fn add(&self, other: &Self) -> Self {
        let e = &self.e + &other.e + (self.grown() + other.grown()) * (U * MORE);
        Self { y: &self.y + &other.y, e }
    }

    /// `|x'z' - xz| <= |x| e_z + e_x |z'|`, and one rounding.
    pub fn mul(&self, other: &Self) -> Self {
        let (x, z) = (self.grown(), other.grown());
        let e = &x * &other.e + &self.e * &z + &x * &z * (U * MORE) + TINY;
        Self { y: &self.y * &other.y, e }
    }

    /// An activation: its steepest slope times the bound, and its own error by the table in `src/ops/activation.rs`.
    pub fn activate(&self, kind: ActivationKind) -> Self {
        let y = self.y.mapv(|y| apply(kind, y));
        let mut e = self.e.clone();
        Zip::from(&mut e).and(&self.y).and(&y).for_each(|e, x, y| {
            // Sigmoid and tanh are the steeper the nearer to 0.
            let (least, sigmoid) = ((x.abs() - *e).max(0.0), |x: f64| apply(ActivationKind::Sigmoid, x));
            let (slope, ulp) = match kind {
                ActivationKind::Relu | ActivationKind::Relu6 => (1.0, 0.0),
                ActivationKind::Sigmoid => (sigmoid(least) * sigmoid(-least), 6.0 + 2.0 * (*e - x).max(0.0)),
                ActivationKind::Tanh => (1.0 - least.tanh().powi(2), 9.0),
                other => panic!("{other:?} has no bound here"),
            };
            *e = *e * slope + ulp * 2.0 * U * (y.abs() + *e * slope) + TINY;
        });
        Self { y, e }
    }

    pub fn relu(&self) -> Self {
        self.activate(ActivationKind::Relu)
    }

    /// A mean of n: n - 1 additions, and a division right to 2.5 ulp, 5 roundings.
    pub fn mean(&self, n: usize, f: impl Fn(&ArrayD<f64>) -> ArrayD<f64>) -> Self {
        Self { y: f(&self.y), e: f(&self.e) + f(&self.grown()) * ((n + 4) as f64 * U * MORE) }
    }

    pub fn concat(parts: &[&Self], axis: usize) -> Self {
        let of = |f: fn(&Near) -> &ArrayD<f64>| {
            let views: Vec<_> = parts.iter().map(|part| f(part).view()).collect();
            ndarray::concatenate(Axis(axis), &views).expect("shapes").as_standard_layout().into_owned()
        };
        Self { y: of(|part| &part.y), e: of(|part| &part.e) }
    }

    /// Both the input and the kernels are off: as [`Self::mul`] for each product, and K*K roundings.
    pub fn involution(&self, w: &Self, spec: &InvolutionSpec) -> Self {
        let run = |x: &ArrayD<f64>, w: &ArrayD<f64>| involution2d(x.view(), w.view(), None, spec).expect("reference");
        let (x, grown) = (self.grown(), w.grown());
        let n = (spec.kernel[0] * spec.kernel[1] + 1) as f64;
        let e = run(&x, &w.e) + run(&self.e, &grown) + run(&x, &grown) * (n * U * MORE) + TINY;
        Self { y: run(&self.y, &w.y), e }
    }

    /// Softmax along an axis. Logits off by e multiply each exponential, and their sum, by `exp(e)` at most; the operator's own error is in
    /// its documentation: `3 + 2.5 d` ulp, as much for the mean, half an ulp an element and 7 for the rest.
    pub fn softmax(&self, axis: usize) -> Self {
        let y = softmax(self.y.view(), axis).expect("reference");
        let mut e = y.clone();
        for ((mut e, x), bound) in
            e.lanes_mut(Axis(axis)).into_iter().zip(self.y.lanes(Axis(axis))).zip(self.e.lanes(Axis(axis)))
        {
            let off = bound.iter().copied().fold(0.0, f64::max);
            let (least, most) = x.iter().fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x), b.max(x)));
            let own = 2.0 * (3.0 + 2.5 * (most - least + 2.0 * off)) + 0.5 * x.len() as f64 + 7.0;
            e.mapv_inplace(|y| y * ((2.0 * off).exp_m1() + own * 2.0 * U) * MORE + TINY);
        }
        Self { y, e }
    }

    /// Deformable convolution with a batch norm. Bilinear sampling of an image with zeros around it is continuous, and along an axis no
    /// steeper than `2 max|x|`: offsets off by d move a sample by `4 d max|x|` at most, where d has the rounding of the coordinate too (once
    /// here and once on the device). Masks and input are off as in [`Self::mul`], and the kernel's own error is (n + 10)*u as derived in
    /// tests/it/deform.rs, one more for the folding.
    pub fn deform(
        &self,
        offset: &Self,
        mask: Option<&Self>,
        weight: &ArrayD<f32>,
        norm: &str,
        spec: &DeformSpec,
    ) -> Self {
        let ones = Near { y: ArrayD::ones(halved(&offset.y)), e: ArrayD::zeros(halved(&offset.y)) };
        let (mask, w) = (mask.unwrap_or(&ones), wide(weight));
        let aw = w.mapv(f64::abs);
        let run = |x: &ArrayD<f64>, mask: &ArrayD<f64>, w: &ArrayD<f64>| {
            deform_conv2d(x.view(), offset.y.view(), Some(mask.view()), w.view(), None, spec).expect("reference")
        };
        let most = |array: &ArrayD<f64>| array.iter().copied().fold(0.0, f64::max);
        let (x, m) = (self.grown(), mask.grown());
        let n = (weight.len() / weight.shape()[0] + 13) as f64;
        let side = self.y.shape()[2..].iter().max().expect("an image") + 16;
        let off = most(&offset.e) + 2.0 * U * (side as f64 + most(&offset.grown()));
        let moved = 4.0 * off * most(&x) * most(&m);
        let mut e = run(&x, &mask.e, &aw) + run(&self.e, &m, &aw) + run(&x, &m, &aw) * (n * U);
        for (c, mut channel) in e.axis_iter_mut(Axis(1)).enumerate() {
            channel += moved * aw.index_axis(Axis(0), c).sum();
        }
        // The batch norm by a 1x1 of ones in groups, which adds no error worth counting to this.
        let summed = Near { y: run(&self.y, &mask.y, &w), e: e * MORE };
        let c = weight.shape()[0];
        summed.conv(
            &ArrayD::ones(IxDyn(&[c, 1, 1, 1])),
            After::Norm(norm, EPS),
            &ConvSpec { groups: c, ..ConvSpec::new(2) },
        )
    }

    /// Panics unless the device's result keeps the bound, and the bound is worth keeping: below a hundredth of the largest value.
    /// It grows with the sum of absolute values, by the root of the products or so a layer, where values themselves do not; a tap, a name
    /// or a sign that is wrong moves results by far more.
    #[track_caller]
    pub fn check(&self, what: &str, got: &Tensor) {
        let (bound, largest) =
            (self.e.iter().copied().fold(0.0, f64::max), self.y.fold(0.0, |a, b| f64::max(a, b.abs())));
        assert!(bound < 1e-2 * largest, "{what}: the bound {bound:e} says little about values up to {largest:e}");
        assert_bounded(what, &got.to_array().expect("read"), &self.y, &self.e);
    }
}

/// Whether the rules choose Winograd for it.
fn winograd(x: &[usize], w: &[usize], spec: &ConvSpec) -> bool {
    if w.len() != 4 {
        return false;
    }
    let two = |values: &[usize]| [values[0], values[1]];
    let options = Conv2d::new().stride(two(&spec.stride)).dilation(two(&spec.dilation)).groups(spec.groups);
    let candidates = options.padding([spec.pads[0], spec.pads[1]]).candidates(gpu().profile(), x, w);
    candidates.expect("a good shape")[0] == ConvKernel::Winograd
}

/// Offsets have two channels a tap, masks one.
fn halved(offset: &ArrayD<f64>) -> IxDyn {
    let mut shape = offset.shape().to_vec();
    shape[1] /= 2;
    IxDyn(&shape)
}

/// Options of a square 2d convolution: stride, dilation, padding, groups.
pub fn spec(stride: usize, dilation: usize, padding: usize, groups: usize) -> ConvSpec {
    ConvSpec {
        stride: vec![stride; 2],
        dilation: vec![dilation; 2],
        pads: vec![(padding, padding); 2],
        groups,
        ..ConvSpec::new(2)
    }
}

/// A convolution and its batch norm by names.
pub fn layer(x: &Near, (conv, norm): (&str, &str), shape: &[usize], spec: &ConvSpec) -> Near {
    x.conv(&get(&format!("{conv}.weight"), shape), After::Norm(norm, EPS), spec)
}
