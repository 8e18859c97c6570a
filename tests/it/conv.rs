//! Convolution: every kernel that is offered for a problem against the reference.

use wgconv::reference::{BorderMode, ConvSpec, conv, conv_out_shape};
use wgconv::{Border, Conv, Conv1d, Conv2d, Conv3d, Padding};

use crate::common::{assert_exact, gpu, integers, poisoned, upload};

/// Runs every kernel offered for the problem into a poisoned output and compares exactly.
#[track_caller]
fn check<const R: usize>(options: &Conv<R>, spec: &ConvSpec, x: &[usize], w: &[usize]) {
    let (x, w) = (integers(x, 1, 4), integers(w, 2, 3));
    let bias = integers(&[w.shape()[0]], 3, 9);
    let want = conv(x.view(), w.view(), Some(bias.view()), spec).expect("reference");
    let (xt, wt, bt) = (upload(&x), upload(&w), upload(&bias));
    assert_eq!(options.output_shape(x.shape(), w.shape()).expect("shape"), want.shape());
    for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
        let out = poisoned(want.shape());
        options.clone().kernel(kernel).forward_into(&xt, &wt, Some(&bt), &out).expect("forward");
        let what = format!("{kernel:?} {options:?} x {:?} w {:?}", x.shape(), w.shape());
        assert_exact(&what, &out.to_array().expect("read"), &want);
    }
}

fn spec<const R: usize>(
    stride: [usize; R],
    dilation: [usize; R],
    pads: [(usize, usize); R],
    groups: usize,
) -> ConvSpec {
    ConvSpec { stride: stride.into(), dilation: dilation.into(), pads: pads.into(), groups, ..ConvSpec::new(R) }
}

/// The same options for both sides.
fn both<const R: usize>(
    stride: [usize; R],
    dilation: [usize; R],
    pads: [(usize, usize); R],
    groups: usize,
) -> (Conv<R>, ConvSpec) {
    let options = Conv::new().stride(stride).dilation(dilation).padding(pads).groups(groups);
    (options, spec(stride, dilation, pads, groups))
}

/// Rows: stride, dilation, pads, groups, input shape, weight shape.
#[test]
fn awkward_2d() {
    for (stride, dilation, pads, groups, x, w) in [
        ([1, 1], [1, 1], [(1, 1), (1, 1)], 1, [2, 17, 9, 6], [19, 17, 3, 3]),
        ([2, 3], [1, 2], [(0, 2), (3, 1)], 1, [1, 5, 11, 14], [7, 5, 3, 2]),
        ([1, 1], [1, 1], [(0, 0), (0, 0)], 1, [3, 8, 4, 4], [16, 8, 1, 1]),
        ([1, 1], [1, 1], [(0, 0), (0, 0)], 2, [2, 16, 6, 6], [24, 8, 1, 1]),
        ([1, 1], [1, 1], [(1, 1), (1, 1)], 6, [2, 6, 7, 5], [6, 1, 3, 3]),
        ([2, 1], [1, 1], [(1, 0), (2, 2)], 4, [1, 8, 9, 9], [12, 2, 3, 5]),
        ([1, 1], [1, 1], [(4, 4), (5, 5)], 1, [1, 3, 3, 2], [4, 3, 2, 2]),
        ([1, 1], [3, 2], [(6, 6), (4, 4)], 1, [1, 4, 13, 9], [40, 4, 5, 5]),
        ([5, 5], [1, 1], [(0, 0), (0, 0)], 1, [1, 3, 5, 5], [33, 3, 5, 5]),
        ([1, 1], [1, 1], [(0, 0), (0, 0)], 1, [1, 64, 1, 1], [10, 64, 1, 1]),
    ] {
        let (options, spec) = both(stride, dilation, pads, groups);
        check(&options, &spec, &x, &w);
    }
}

/// Every instance of the depthwise kernel: kernel sizes, strides, aligned and odd rows, any multiplier, flipped.
#[test]
fn depthwise() {
    for (kernel, pad) in [([3, 3], 1), ([5, 5], 2), ([7, 7], 3), ([1, 3], 1), ([1, 5], 2), ([1, 7], 3)] {
        let pad_h = if kernel[0] == 1 { 0 } else { pad };
        for stride in [1, 2] {
            for (h, w, left, multiplier, flip) in
                [(9, 12, pad, 1, false), (8, 7, pad + 1, 2, true), (13, 16, pad - 1, 1, true)]
            {
                let (options, mut spec) = both([stride; 2], [1; 2], [(pad_h, pad_h), (left, pad)], 6);
                spec.flip_kernel = flip;
                check(&options.flip_kernel(flip), &spec, &[2, 6, h, w], &[6 * multiplier, 1, kernel[0], kernel[1]]);
            }
        }
    }
    let (options, spec) = both([2], [1], [(2, 1)], 5);
    check::<1>(&options, &spec, &[3, 5, 22], &[10, 1, 5]);
}

#[test]
fn one_and_three_dimensions() {
    let (options, spec) = both([2], [3], [(4, 1)], 2);
    check::<1>(&options, &spec, &[2, 6, 41], &[8, 3, 4]);
    let (options, spec) = both([1, 2, 1], [1, 1, 2], [(1, 0), (1, 1), (2, 3)], 1);
    check::<3>(&options, &spec, &[2, 5, 4, 7, 6], &[9, 5, 2, 3, 3]);
}

#[test]
fn borders_and_flip() {
    for (border, mode) in [
        (Border::Reflect, BorderMode::Reflect),
        (Border::Replicate, BorderMode::Replicate),
        (Border::Circular, BorderMode::Circular),
    ] {
        let (options, mut spec) = both([1, 2], [2, 1], [(3, 4), (2, 0)], 1);
        spec.border = mode;
        check(&options.border(border), &spec, &[2, 5, 7, 6], &[9, 5, 3, 3]);
    }
    let (options, mut spec) = both([1, 1], [1, 1], [(1, 1), (1, 2)], 2);
    spec.flip_kernel = true;
    check(&options.flip_kernel(true), &spec, &[1, 4, 6, 5], &[6, 2, 3, 4]);
}

#[test]
fn named_padding() {
    let x = [1, 3, 10];
    for (padding, pads, stride, dilation, k) in [
        (Padding::Same, (1, 2), 1, 1, 4),
        (Padding::SameLower, (2, 1), 1, 1, 4),
        (Padding::Same, (1, 1), 3, 1, 3),
        (Padding::Full, (6, 6), 1, 3, 3),
        (Padding::Causal, (6, 0), 1, 3, 3),
        (Padding::Valid, (0, 0), 1, 1, 3),
    ] {
        let options = Conv1d::new().padding(padding).stride(stride).dilation(dilation);
        check(&options, &spec([stride], [dilation], [pads], 1), &x, &[2, 3, k]);
    }
    let _ = (Conv2d::new(), Conv3d::new(), conv_out_shape(&x, &[2, 3, 3], &ConvSpec::new(1)));
}
