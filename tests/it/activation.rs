//! Activations over all of f32, as an operator and as an epilogue, within the bounds that `src/ops/activation.rs` derives.

use ndarray::{Array, ArrayD, IxDyn};
use wgconv::reference::{ActivationKind, apply};
use wgconv::{Activation, Conv2d, Error, Tensor, ndarray};

use crate::common::{assert_near, gpu, next, poisoned, tight, upload};

const ALL: [(Activation, ActivationKind); 12] = [
    (Activation::Identity, ActivationKind::Identity),
    (Activation::Relu, ActivationKind::Relu),
    (Activation::Relu6, ActivationKind::Relu6),
    (Activation::LeakyRelu(0.25), ActivationKind::LeakyRelu(0.25)),
    (Activation::LeakyRelu(-3.0), ActivationKind::LeakyRelu(-3.0)),
    (Activation::Sigmoid, ActivationKind::Sigmoid),
    (Activation::Tanh, ActivationKind::Tanh),
    (Activation::Silu, ActivationKind::Silu),
    (Activation::Gelu, ActivationKind::Gelu),
    (Activation::GeluTanh, ActivationKind::GeluTanh),
    (Activation::HardSigmoid, ActivationKind::HardSigmoid),
    (Activation::HardSwish, ActivationKind::HardSwish),
];

/// (relative error in ulp of 2^-23, absolute error) at x, as the table in `src/ops/activation.rs` has them.
fn table(kind: ActivationKind, x: f64) -> (f64, f64) {
    let below = (-x).max(0.0);
    let phi = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    let z = 1.5958 * x + 0.0714 * x * x * x;
    let (relative, exponent) = match kind {
        ActivationKind::Identity | ActivationKind::Relu | ActivationKind::Relu6 => (0.0, -126),
        // A comparison may take a denormal for zero; then it comes back as it is.
        ActivationKind::LeakyRelu(slope) => {
            return (1.0, 2f64.powi(-126) * slope.abs().max((1.0 - slope).abs()).max(1.0));
        }
        ActivationKind::Sigmoid => (6.0 + 2.0 * below, -125),
        ActivationKind::Tanh => (9.0, -125),
        ActivationKind::Silu => (7.0 + 2.0 * below, -119),
        ActivationKind::Gelu if x > 0.0 => (2.0 + (18.0 + 1.25 * x * x) * phi(-x) / phi(x), -121),
        ActivationKind::Gelu => (19.0 + 1.25 * x * x, -121),
        ActivationKind::GeluTanh => (8.0 + 4.5 * (-z).max(0.0), -119),
        ActivationKind::HardSigmoid => (4.0, -125),
        ActivationKind::HardSwish => (if x >= 3.0 { 0.0 } else { 5.0 }, -123),
    };
    (relative, 2f64.powi(exponent))
}

fn bound(kind: ActivationKind, x: f32) -> f64 {
    let x = f64::from(x);
    let (relative, absolute) = table(kind, x);
    // A result of 0 stays 0 however large the factor is.
    let scale = apply(kind, x).abs();
    absolute + if scale > 0.0 { relative * 2f64.powi(-23) * scale } else { 0.0 }
}

/// Every exponent with both signs, denormals among them, a dense sweep where the functions bend, and what is special.
fn values() -> Vec<f32> {
    let mut list = vec![0.0, -0.0, f32::MIN_POSITIVE, f32::MAX, f32::MIN, 3.0, -3.0, 6.0, -6.0];
    list.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(1), f32::from_bits(0xff80_0001)]);
    let mut state = 1;
    for exponent in 0..255u32 {
        for i in 0..20 {
            let mantissa = if i == 0 { 0 } else { next(&mut state) as u32 & 0x7f_ffff };
            let bits = exponent << 23 | mantissa;
            list.extend([f32::from_bits(bits), f32::from_bits(bits | 1 << 31)]);
        }
    }
    list.extend((0..=12_000).map(|i| (i - 6000) as f32 / 6000.0 * 16.0));
    list
}

/// What f32 cannot hold is an infinity.
fn reference(kind: ActivationKind, x: &ArrayD<f32>) -> ArrayD<f64> {
    x.mapv(|x| apply(kind, f64::from(x))).mapv(|y| if (y as f32).is_infinite() { f64::from(y as f32) } else { y })
}

#[test]
fn operator_over_all_of_f32() {
    let list = values();
    let x = Array::from_vec(list.clone()).into_dyn();
    let tensor = upload(&x);
    for (activation, kind) in ALL {
        let out = poisoned(x.shape());
        activation.forward_into(&tensor, &out).expect("forward");
        let got = out.to_array().expect("read");
        assert_near(&format!("{activation:?}"), &got, &reference(kind, &x), |i| bound(kind, list[i]));
    }
}

/// A 1x1 convolution with weight 1 hands every value on as it is.
#[test]
fn epilogue_over_all_of_f32() {
    let list = values();
    let x = Array::from_shape_vec(IxDyn(&[1, 1, 1, list.len()]), list.clone()).expect("row");
    let (xt, w) = (upload(&x), upload(&ArrayD::ones(IxDyn(&[1, 1, 1, 1]))));
    for (i, (activation, kind)) in ALL.into_iter().enumerate() {
        let conv = Conv2d::new().activation(activation);
        // A function is the same text in each shader: every kernel has one in three of them, and every function two kernels or more.
        let kernels = conv.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates");
        for kernel in kernels.into_iter().skip(i % 3).step_by(3) {
            let got = conv.clone().kernel(kernel).forward(&xt, &w, None).expect("forward").to_array().expect("read");
            assert_near(&format!("{kernel:?} {activation:?}"), &got, &reference(kind, &x), |i| bound(kind, list[i]));
        }
    }
}

/// The kernels that need several channels, by the identity matrix; 0 times what is not finite would be NaN, so that is left out.
#[test]
fn epilogue_of_several_channels() {
    let list: Vec<f32> = values().into_iter().filter(|x| x.is_finite()).step_by(3).collect();
    let list = &list[..list.len() / 16 * 16];
    let x = Array::from_shape_vec(IxDyn(&[1, 4, 4, list.len() / 16]), list.to_vec()).expect("planes");
    let identity = Array::from_shape_fn(IxDyn(&[4, 4, 1, 1]), |i| f32::from(i[0] == i[1]));
    let (xt, w) = (upload(&x), upload(&identity));
    for (activation, kind) in ALL {
        let conv = Conv2d::new().activation(activation);
        for kernel in conv.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
            let got = conv.clone().kernel(kernel).forward(&xt, &w, None).expect("forward").to_array().expect("read");
            assert_near(&format!("{kernel:?} {activation:?}"), &got, &reference(kind, &x), |i| bound(kind, list[i]));
        }
    }
}

/// Any length, in windows where bindings are small.
#[test]
fn tails_and_windows() {
    let gpu = tight();
    for shape in [&[1][..], &[3], &[5, 7], &[1021], &[3, 5, 7, 11], &[4100]] {
        let x = crate::common::reals(shape, 3);
        for (gpu, parts) in [(&crate::common::gpu(), false), (&gpu, x.len() > 1024)] {
            let tensor = Tensor::from_array(gpu, &x).expect("upload");
            assert_eq!(Activation::Relu.plan(gpu.profile(), shape).expect("plan").dispatches() > 1, parts);
            let got = Activation::Relu.forward(&tensor).expect("forward").to_array().expect("read");
            assert_eq!(got, x.mapv(|x| x.max(0.0)), "{shape:?}");
        }
    }
}

#[test]
fn mistakes_are_typed_errors() {
    let profile = gpu().profile().clone();
    let error = Activation::Relu.plan(&profile, &[2, 0]).expect_err("empty");
    assert!(matches!(error, Error::Invalid { op: "activation", argument: "input", .. }), "{error}");
    let error = Activation::Relu.plan(&profile, &[1 << 62, 1 << 62]).expect_err("too large");
    assert!(matches!(error, Error::TooLarge { op: "activation", .. }), "{error}");
    let x = upload(&ArrayD::zeros(IxDyn(&[4])));
    assert!(Activation::Relu.forward_into(&x, &x).is_err());
    assert!(Activation::Relu.forward_into(&x, &poisoned(&[5])).is_err());
}
