//! Sum and product with numpy's broadcasting, against the reference.

use ndarray::ArrayD;
use proptest::prelude::*;
use wgconv::reference::{ActivationKind, add, apply, mul};
use wgconv::{Activation, Add, Error, Gpu, Mul, Tensor, ndarray};

use crate::common::{assert_exact, assert_near, gpu, integers, tight, upload};

/// Both operators on integers, into poisoned outputs of the device.
#[track_caller]
fn check(gpu: &Gpu, a: &[usize], b: &[usize]) {
    let (x, y) = (integers(a, 1, 99), integers(b, 2, 99));
    let put = |array: &ArrayD<f32>| Tensor::from_array(gpu, array).expect("upload");
    let (xt, yt) = (put(&x), put(&y));
    let want = add(x.view(), y.view()).expect("reference");
    assert_eq!(Add::new().output_shape(a, b).expect("shape"), want.shape());
    let nan = put(&ArrayD::from_elem(want.shape(), f32::NAN));
    Add::new().forward_into(&xt, &yt, &nan).expect("add");
    assert_exact(&format!("add {a:?} {b:?}"), &nan.to_array().expect("read"), &want);
    let nan = put(&ArrayD::from_elem(want.shape(), f32::NAN));
    let relu = Mul::new().activation(Activation::Relu);
    relu.forward_into(&xt, &yt, &nan).expect("mul");
    let want = mul(x.view(), y.view()).expect("reference").mapv(|y| apply(ActivationKind::Relu, y));
    assert_exact(&format!("mul {a:?} {b:?}"), &nan.to_array().expect("read"), &want);
}

#[test]
fn broadcasts_like_numpy() {
    for (a, b) in [
        (&[2, 3, 4, 5][..], &[2, 3, 4, 5][..]),
        (&[7], &[7]),
        (&[2, 5, 4, 4], &[5, 1, 1]),
        (&[2, 5, 3, 3], &[2, 5, 1, 1]),
        (&[5, 1], &[1, 7]),
        (&[8, 1], &[1, 8]),
        (&[3], &[4, 1, 3]),
        (&[1], &[3, 5]),
        (&[1, 1], &[1]),
        (&[], &[2, 2]),
        (&[], &[]),
        (&[2, 1, 3, 1, 2, 1, 4, 1], &[1, 3, 1, 2, 1, 5, 1, 3]),
        (&[2, 1, 3, 1, 2, 1, 1, 4], &[1, 3, 1, 2, 1, 5, 1, 4]),
        (&[2, 3, 1, 1, 1, 1, 4, 8], &[3, 2, 1, 5, 1, 8]),
    ] {
        check(&gpu(), a, b);
        check(&gpu(), b, a);
    }
}

/// Bindings of 4 KiB.
#[test]
fn windows_over_the_binding_limit() {
    for (a, b) in [
        (&[4001][..], &[4001][..]),
        (&[4001], &[1]),
        (&[3, 7, 9, 11], &[3, 7, 9, 11]),
        (&[2, 5, 16, 20], &[2, 5, 1, 1]),
        (&[2, 5, 15, 21], &[5, 1, 21]),
        (&[1500, 1], &[1, 3]),
        (&[2, 1, 1501], &[3, 1501]),
        (&[2, 1, 1600], &[3, 1]),
    ] {
        assert!(Add::new().plan(tight().profile(), a, b).expect("plan").dispatches() > 1);
        check(&tight(), a, b);
        check(&tight(), b, a);
    }
}

#[test]
fn one_rounding_and_what_is_not_finite() {
    let x = ndarray::arr1(&[1.5e-3f32, f32::NAN, f32::INFINITY, 1e30, -0.0, 2.0]).into_dyn();
    let y = ndarray::arr1(&[1.0f32, 1.0, f32::NEG_INFINITY, 1e30, 5.0, f32::INFINITY]).into_dyn();
    let sum = Add::new().forward(&upload(&x), &upload(&y)).expect("add").to_array().expect("read");
    let product = Mul::new().forward(&upload(&x), &upload(&y)).expect("mul").to_array().expect("read");
    // f32 addition and multiplication round once, as WGSL's do. WGSL does not say which way: equal bits take an adapter that rounds to
    // nearest, and that makes an infinity of what overflows.
    assert_near("add", &sum, &(&x + &y).mapv(f64::from), |_| 0.0);
    assert_near("mul", &product, &(&x * &y).mapv(f64::from), |_| 0.0);
    // An operand may be both.
    let t = upload(&x);
    let got = Add::new().forward(&t, &t).expect("add").to_array().expect("read");
    assert_near("double", &got, &(&x + &x).mapv(f64::from), |_| 0.0);
}

#[test]
fn mistakes_are_typed_errors() {
    let shape = |a: &[usize], b: &[usize]| match Mul::new().output_shape(a, b) {
        Err(Error::Invalid { op: "mul", argument, .. }) => argument,
        Err(Error::TooLarge { op: "mul", argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    assert_eq!(shape(&[2, 3], &[3, 2]), "b");
    assert_eq!(shape(&[2], &[3]), "b");
    assert_eq!(shape(&[0], &[1]), "a");
    assert_eq!(shape(&[1; 9], &[1]), "a");
    assert_eq!(shape(&[1], &[1; 9]), "b");
    assert_eq!(shape(&[1 << 62, 4], &[1]), "a");
    assert_eq!(shape(&[1 << 20, 1], &[1 << 20]), "output");
    let (x, y) = (upload(&integers(&[2, 3], 1, 3)), upload(&integers(&[3], 2, 3)));
    assert!(Add::new().forward_into(&x, &y, &x).is_err());
    assert!(Add::new().forward_into(&x, &y, &upload(&integers(&[3, 2], 1, 3))).is_err());
    let other = Tensor::from_array(&tight(), &integers(&[3], 2, 3)).expect("upload");
    let error = Add::new().forward(&x, &other).expect_err("two devices");
    assert!(matches!(error, Error::Invalid { op: "add", argument: "b", .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_shapes(
        extents in prop::collection::vec((1usize..6, any::<bool>(), any::<bool>()), 0..6),
        missing in 0usize..3,
    ) {
        let one = |repeat: bool, extent: usize| if repeat { 1 } else { extent };
        let a: Vec<usize> = extents.iter().map(|&(extent, repeat, _)| one(repeat, extent)).collect();
        let b: Vec<usize> = extents.iter().skip(missing).map(|&(extent, _, repeat)| one(repeat, extent)).collect();
        check(&gpu(), &a, &b);
    }
}
