//! Problems larger than a dispatch or a binding.

use ndarray::{ArrayD, IxDyn, s};
use wgconv::reference::{ConvSpec, conv_at};
use wgconv::{Conv2d, ConvKernel, ConvTranspose2d, Error, Tensor, ndarray};

use crate::common::{gpu, integers, next, upload};

/// Compares seeded elements, and the corners, with the reference.
#[track_caller]
fn check_some(x: &ArrayD<f32>, w: &ArrayD<f32>, y: &ArrayD<f32>, spec: &ConvSpec) {
    let mut state = 7;
    for i in 0..300 {
        let pick = |extent: usize, state: &mut u64| match i {
            0 => 0,
            1 => extent - 1,
            _ => (next(state) % extent as u64) as usize,
        };
        let index: Vec<usize> = y.shape().iter().map(|&extent| pick(extent, &mut state)).collect();
        let want = conv_at(x.view(), w.view(), None, spec, &index).expect("reference");
        assert_eq!(f64::from(y[IxDyn(&index)]), want, "at {index:?}");
    }
    assert!(y.iter().all(|v| v.is_finite()));
}

/// 70,000 workgroups and more are folded into the axes of a dispatch.
#[test]
fn more_workgroups_than_an_axis_holds() {
    let (x, w) = (integers(&[1, 1, 2100, 2136], 1, 4), integers(&[1, 1, 1, 1], 2, 3));
    for kernel in [ConvKernel::Direct, ConvKernel::Auto] {
        let conv = Conv2d::new().kernel(kernel);
        let plan = conv.plan(gpu().profile(), x.shape(), w.shape()).expect("plan");
        if kernel == ConvKernel::Direct {
            assert!(plan.to_string().contains("70088 x") || plan.to_string().contains("x 70088"), "{plan}");
        }
        let y = conv.forward(&upload(&x), &upload(&w), None).and_then(|y| y.to_array()).expect("forward");
        check_some(&x, &w, &y, &ConvSpec::new(2));
    }
}

/// One image of 144 MB, in and out: over the 128 MiB that a binding holds here. Input channels, output channels and groups are cut.
#[test]
fn a_single_image_over_the_binding() {
    let (x, w) = (integers(&[1, 9, 2000, 2000], 1, 3), integers(&[9, 3, 1, 1], 2, 3));
    let conv = Conv2d::new().groups(3);
    let y = conv.forward(&upload(&x), &upload(&w), None).and_then(|y| y.to_array()).expect("forward");
    check_some(&x, &w, &y, &ConvSpec { groups: 3, ..ConvSpec::new(2) });
}

/// A single plane of 138 MB is cut along its rows.
#[test]
fn a_single_plane_over_the_binding() {
    let (x, w) = (integers(&[1, 1, 6000, 5751], 1, 3), integers(&[1, 1, 3, 1], 2, 3));
    let conv = Conv2d::new().padding([(1, 1), (0, 0)]);
    let y = conv.forward(&upload(&x), &upload(&w), None).and_then(|y| y.to_array()).expect("forward");
    check_some(&x, &w, &y, &ConvSpec { pads: vec![(1, 1), (0, 0)], ..ConvSpec::new(2) });
}

/// Of such a plane a single row of the output reads a single row: no more of it is bound.
#[test]
fn one_row_of_a_plane_over_the_binding() {
    let (x, w) = (integers(&[1, 1, 6000, 5751], 1, 3), integers(&[1, 1, 1, 1], 2, 3));
    let want = x.slice(s![.., .., ..1, ..]).mapv(|x| x * w[[0, 0, 0, 0]]).into_dyn();
    let (x, w) = (upload(&x), upload(&w));
    let conv = Conv2d::new().stride([6000, 1]);
    let up = ConvTranspose2d::new().padding([(0, 5999), (0, 0)]);
    for y in [conv.forward(&x, &w, None), up.forward(&x, &w, None)] {
        assert_eq!(y.and_then(|y| y.to_array()).expect("forward"), want);
    }
}

/// A batch over the binding is cut between images, on every kernel that takes the problem.
#[test]
fn a_batch_over_the_binding() {
    let (x, w) = (integers(&[5, 8, 1000, 900], 1, 3), integers(&[8, 8, 1, 1], 2, 3));
    let (xt, wt) = (upload(&x), upload(&w));
    for kernel in Conv2d::new().candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
        let y = Conv2d::new().kernel(kernel).forward(&xt, &wt, None).and_then(|y| y.to_array()).expect("forward");
        check_some(&x, &w, &y, &ConvSpec::new(2));
    }
    let w = integers(&[8, 1, 3, 3], 2, 3);
    let conv = Conv2d::new().groups(8).padding(1).kernel(ConvKernel::Depthwise);
    let y = conv.forward(&xt, &upload(&w), None).and_then(|y| y.to_array()).expect("forward");
    check_some(&x, &w, &y, &ConvSpec { groups: 8, pads: vec![(1, 1); 2], ..ConvSpec::new(2) });
}

/// What no adapter holds is refused before anything is allocated.
#[test]
fn what_cannot_fit_is_refused() {
    for shape in [vec![1 << 20, 1 << 20], vec![usize::MAX, 2], vec![1 << 31]] {
        let result = Tensor::zeros(&gpu(), &shape);
        assert!(matches!(result, Err(Error::TooLarge { .. })), "{shape:?}: {result:?}");
    }
    let (x, w) = ([1, 1, 1 << 15, 1 << 15], [64, 1, 1, 1]);
    let plan = Conv2d::new().output_shape(&x, &w);
    assert!(matches!(plan, Err(Error::TooLarge { argument: "output", .. })), "{plan:?}");
}
