//! The fully connected layer: every kernel that is offered against the reference.

use ndarray::{Array, ArrayD, IxDyn};
use proptest::prelude::*;
use wgconv::reference::{ActivationKind, epilogue, linear};
use wgconv::{Activation, Error, Gpu, Linear, LinearKernel, Tensor, ndarray};

use crate::common::{
    abs, assert_bounded, assert_exact, assert_near, gpu, integers, largest, linear_bound, reals, tight, upload,
};

fn put(gpu: &Gpu, array: &ArrayD<f32>) -> Tensor {
    Tensor::from_array(gpu, array).expect("upload")
}

fn shapes(x: &[usize], outputs: usize) -> ([usize; 2], Vec<usize>) {
    let inputs = *x.last().expect("an axis");
    ([outputs, inputs], [&x[..x.len() - 1], &[outputs]].concat())
}

/// Exactly on integers with bias, residual and relu, every kernel into a poisoned output.
#[track_caller]
fn check(gpu: &Gpu, x: &[usize], outputs: usize) {
    let (w, y) = shapes(x, outputs);
    let (x, w, bias, residual) =
        (integers(x, 1, 4), integers(&w, 2, 3), integers(&[outputs], 3, 9), integers(&y, 4, 9));
    let plain = linear(x.view(), w.view(), Some(bias.view())).expect("reference");
    let want = epilogue(plain, Some(residual.view()), ActivationKind::Relu).expect("reference");
    let (xt, wt, bt, rt) = (put(gpu, &x), put(gpu, &w), put(gpu, &bias), put(gpu, &residual));
    let options = Linear::new().residual(&rt).activation(Activation::Relu);
    assert_eq!(options.output_shape(x.shape(), w.shape()).expect("shape"), want.shape());
    for kernel in options.candidates(gpu.profile(), x.shape(), w.shape()).expect("candidates") {
        let out = put(gpu, &ArrayD::from_elem(IxDyn(&y), f32::NAN));
        options.clone().kernel(kernel).forward_into(&xt, &wt, Some(&bt), &out).expect("forward");
        let what = format!("{kernel:?} x {:?} w {:?}", x.shape(), w.shape());
        assert_exact(&what, &out.to_array().expect("read"), &want);
    }
}

#[test]
fn awkward_shapes() {
    for (x, outputs) in [
        (&[1, 64][..], 10),
        (&[7], 3),
        (&[1], 1),
        (&[5, 1], 9),
        (&[1, 257], 33),
        (&[3, 260], 5),
        (&[4, 4], 4),
        (&[17, 12], 19),
        (&[2, 3, 5, 8], 7),
        (&[33, 36], 40),
        (&[64, 30], 1),
        (&[1, 4100], 6),
        (&[5, 4101], 5),
    ] {
        check(&gpu(), x, outputs);
    }
}

/// Bindings of 4 KiB: by rows, by features, and features of a single row.
#[test]
fn windows_over_the_binding_limit() {
    for (x, outputs) in [(&[300, 8][..], 4), (&[3, 700], 5), (&[40, 30], 50), (&[2, 4], 1100), (&[700, 2], 2)] {
        let (w, _) = shapes(x, outputs);
        assert!(Linear::new().kernel(LinearKernel::Dot).plan(tight().profile(), x, &w).expect("plan").dispatches() > 1);
        check(&tight(), x, outputs);
    }
    let error = Linear::new().plan(tight().profile(), &[2, 1100], &[3, 1100]).expect_err("a row does not fit");
    assert!(matches!(error, Error::TooLarge { op: "linear", .. }), "{error}");
}

/// NaN and infinities reach only the features and rows that they are part of.
#[test]
fn what_is_not_finite_stays_in_its_row() {
    let (mut x, w) = (reals(&[20, 24], 5), reals(&[9, 24], 6));
    x[[3, 7]] = f32::NAN;
    x[[19, 23]] = f32::INFINITY;
    let want = linear(x.view(), w.view(), None).expect("reference");
    for kernel in Linear::new().candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
        let got = Linear::new().kernel(kernel).forward(&upload(&x), &upload(&w), None).expect("forward");
        assert_near(&format!("{kernel:?}"), &got.to_array().expect("read"), &want, |_| 1e-4);
    }
}

/// A single row goes to the dot products, many to the GEMM where there is one; packing ahead changes nothing.
#[test]
fn rules_and_prepared_weights() {
    let profile = gpu().profile().clone();
    let plan = |x: &[usize], w: &[usize]| Linear::new().plan(&profile, x, w).expect("plan").kernel();
    assert_eq!(plan(&[1, 64], &[10, 64]), "dot");
    if profile.subgroup.is_some() {
        assert_eq!(plan(&[64, 64], &[10, 64]), "subgroup");
    }
    let (x, w) = (upload(&integers(&[32, 16], 1, 4)), upload(&integers(&[24, 16], 2, 4)));
    let prepared = Linear::new().prepare(&w, x.shape()).expect("prepare");
    let got = Linear::new().forward(&x, &prepared, None).expect("forward").to_array().expect("read");
    assert_eq!(got, Linear::new().forward(&x, &w, None).expect("forward").to_array().expect("read"));
    let mut encoder = gpu().device().create_command_encoder(&wgconv::wgpu::CommandEncoderDescriptor::default());
    let encoded = Linear::new().encode(&mut encoder, &x, &w, None).expect("encode");
    gpu().queue().submit([encoder.finish()]);
    assert_eq!(encoded.submitted().to_array().expect("read"), got);
}

#[test]
fn mistakes_are_typed_errors() {
    let huge = 1usize << 62;
    let shape = |x: &[usize], w: &[usize]| match Linear::new().output_shape(x, w) {
        Err(Error::Invalid { op: "linear", argument, .. } | Error::TooLarge { op: "linear", argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    assert_eq!(shape(&[2, 3], &[3]), "weight");
    assert_eq!(shape(&[2, 3], &[0, 3]), "weight");
    assert_eq!(shape(&[2, 3], &[4, 5]), "input");
    assert_eq!(shape(&[], &[4, 5]), "input");
    assert_eq!(shape(&[0, 5], &[4, 5]), "input");
    assert_eq!(shape(&[huge, 5], &[4, 5]), "input");
    assert_eq!(shape(&[1, huge], &[4, huge]), "input");
    assert_eq!(shape(&[1 << 20, 1], &[1 << 20, 1]), "output");
    let (x, w) = (upload(&integers(&[2, 3], 1, 3)), upload(&integers(&[4, 3], 2, 3)));
    let argument = |result: wgconv::Result<Tensor>| match result {
        Err(Error::Invalid { op: "linear", argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    assert_eq!(argument(Linear::new().forward(&x, &w, Some(&x))), "bias");
    assert_eq!(argument(Linear::new().residual(&x).forward(&x, &w, None)), "residual");
    let other = put(&tight(), &Array::zeros(IxDyn(&[4, 3])));
    assert_eq!(argument(Linear::new().forward(&x, &other, None)), "weight");
    assert!(Linear::new().forward_into(&x, &w, None, &x).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_shapes(rows in 1usize..40, inputs in 1usize..70, outputs in 1usize..40, seed in 0u64..1000) {
        let (x, w, bias) = (reals(&[rows, inputs], seed), reals(&[outputs, inputs], seed + 1), reals(&[outputs], seed + 2));
        let want = linear(x.view(), w.view(), Some(bias.view())).expect("reference");
        let absolute = linear(abs(&x).view(), abs(&w).view(), Some(abs(&bias).view())).expect("reference");
        let bound = linear_bound(inputs + 1, &absolute, largest(x.view()) + largest(w.view()), 1.0);
        let options = Linear::new();
        for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
            let y = options.clone().kernel(kernel).forward(&upload(&x), &upload(&w), Some(&upload(&bias))).expect("forward");
            assert_bounded(&format!("{kernel:?} {rows} {inputs} {outputs}"), &y.to_array().expect("read"), &want, &bound);
        }
    }
}
