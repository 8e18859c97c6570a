//! Softmax against the reference, within the bound that its documentation gives.

use ndarray::{ArrayD, Axis, arr2};
use proptest::prelude::*;
use wgconv::reference::softmax;
use wgconv::{Error, Gpu, Softmax, Tensor, ndarray};

use crate::common::{assert_near, gpu, poisoned, reals, tight, upload};

/// 3 + 2.5 d ulp for the exponential of -d, its mean over the line and half an ulp an element for the sum, 3 for the division, and 4 for
/// each part that a line is cut into.
fn bound(x: &ArrayD<f32>, axis: usize, want: &ArrayD<f64>, parts: usize) -> Vec<f64> {
    let mut bound = x.mapv(f64::from);
    for (mut line, y) in bound.lanes_mut(Axis(axis)).into_iter().zip(want.lanes(Axis(axis))) {
        let greatest = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        line.mapv_inplace(|v| 3.0 + 2.5 * (greatest - v).min(100.0));
        let mean: f64 = line.iter().zip(y).map(|(error, y)| error * y).sum();
        let rest = mean + 0.5 * line.len() as f64 + 3.0 + 4.0 * parts as f64;
        line.zip_mut_with(&y, |error, y| *error = (*error + rest) * 2f64.powi(-23) * y + 2f64.powi(-124));
    }
    bound.into_iter().collect()
}

#[track_caller]
fn check(gpu: &Gpu, x: &ArrayD<f32>, axis: usize, parts: usize) {
    let want = softmax(x.view(), axis).expect("reference");
    let bound = bound(x, axis, &want, parts);
    let out = Tensor::from_array(gpu, &ArrayD::from_elem(x.shape(), f32::NAN)).expect("upload");
    let from_end = axis as isize - x.ndim() as isize;
    Softmax::new(from_end).forward_into(&Tensor::from_array(gpu, x).expect("upload"), &out).expect("forward");
    assert_near(&format!("{:?} axis {axis}", x.shape()), &out.to_array().expect("read"), &want, |i| bound[i]);
}

#[test]
fn any_axis() {
    for (shape, axis) in [
        (&[1000][..], 0),
        (&[5, 17], 1),
        (&[5, 17], 0),
        (&[2, 3, 70, 9], 2),
        (&[2, 3, 4, 5], 0),
        (&[3, 5000], 1),
        (&[70, 64], 1),
        (&[1], 0),
        (&[4, 1], 1),
    ] {
        // Far apart, so that some terms vanish and the sum is well above the least.
        check(&gpu(), &reals(shape, 5).mapv(|v| 60.0 * v), axis, 1);
        check(&gpu(), &reals(shape, 6).mapv(|v| v + 1e4), axis, 1);
    }
}

/// Bindings of 4 KiB: parts of the outer axes, of the axis itself, and of the inner ones.
#[test]
fn windows_over_the_binding_limit() {
    for (shape, axis, parts) in [
        (&[90, 40][..], 1, 1),
        (&[2, 3000], 1, 4),
        (&[3, 7, 300], 1, 4),
        (&[2, 5, 1300], 1, 5),
        (&[1, 3, 800], 1, 3),
        (&[2000, 1], 1, 1),
        (&[600, 1], 1, 1),
    ] {
        assert!(Softmax::new(axis as isize).plan(tight().profile(), shape).expect("plan").dispatches() > 2);
        check(&tight(), &reals(shape, 7).mapv(|v| 40.0 * v), axis, parts);
    }
}

/// On both kernels and in windows: whole lines are NaN, the others do not see it.
#[test]
fn what_is_not_finite_stays_in_its_line() {
    for len in [6, 4500] {
        for gpu in [gpu(), tight()] {
            let mut x = reals(&[8, len], 8);
            x[[0, 5]] = f32::NAN;
            x[[1, 0]] = f32::INFINITY;
            x[[2, 3]] = f32::NEG_INFINITY;
            x.index_axis_mut(Axis(0), 3).fill(f32::NEG_INFINITY);
            x.index_axis_mut(Axis(0), 4).fill(f32::INFINITY);
            x.index_axis_mut(Axis(0), 5).fill(f32::MIN);
            x[[6, 1]] = f32::MAX;
            x[[6, 2]] = f32::MIN;
            x.index_axis_mut(Axis(0), 7).fill(f32::NEG_INFINITY);
            x[[7, len - 1]] = -3.0;
            check(&gpu, &x, 1, len / 900 + 1);
        }
    }
}

#[test]
fn by_hand() {
    let x = upload(&arr2(&[[0.0f32, 3f32.ln()], [7.0, 7.0]]));
    let got = Softmax::new(1).forward(&x).expect("forward").to_array().expect("read");
    assert_near("rows", &got, &arr2(&[[0.25, 0.75], [0.5, 0.5]]).into_dyn(), |_| 1e-6);
    let mut encoder = gpu().device().create_command_encoder(&wgconv::wgpu::CommandEncoderDescriptor::default());
    let encoded = Softmax::new(-1).encode(&mut encoder, &x).expect("encode");
    gpu().queue().submit([encoder.finish()]);
    assert_eq!(encoded.submitted().to_array().expect("read"), got);
}

#[test]
fn mistakes_are_typed_errors() {
    let shape = |axis: isize, x: &[usize]| match Softmax::new(axis).output_shape(x) {
        Err(Error::Invalid { op: "softmax", argument, .. } | Error::TooLarge { op: "softmax", argument, .. }) => {
            argument
        }
        other => panic!("{other:?}"),
    };
    for axis in [2, -3, isize::MAX, isize::MIN] {
        assert_eq!(shape(axis, &[2, 3]), "axis");
    }
    assert_eq!(shape(0, &[]), "axis");
    assert_eq!(shape(0, &[2, 0]), "input");
    assert_eq!(shape(0, &[1 << 62, 1 << 62]), "input");
    let x = upload(&reals(&[4, 4], 1));
    assert!(Softmax::new(0).forward_into(&x, &x).is_err());
    assert!(Softmax::new(0).forward_into(&x, &poisoned(&[4, 5])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_shapes(
        shape in prop::collection::vec(1usize..12, 1..5),
        at in 0usize..4,
        scale in 0.1f32..90.0,
        seed in 0u64..1000,
    ) {
        check(&gpu(), &reals(&shape, seed).mapv(|v| v * scale), at % shape.len(), 1);
    }
}
