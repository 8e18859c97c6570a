//! Convolution: every kernel that is offered for a problem against the reference.

use ndarray::ArrayD;
use proptest::prelude::*;
use wgconv::reference::{ActivationKind, BorderMode, ConvSpec, conv};
use wgconv::{Activation, AdapterClass, Border, Conv, Conv1d, ConvKernel, Gpu, Padding, Tensor, ndarray, wgpu};

use crate::common::{
    abs, assert_bounded, assert_exact, assert_near, gpu, integers, largest, linear_bound, poisoned, reals, to_run,
    upload,
};
use crate::winograd;

/// Runs every kernel offered for the problem into a poisoned output and compares exactly.
#[track_caller]
fn check<const R: usize>(options: &Conv<R>, spec: &ConvSpec, x: &[usize], w: &[usize]) {
    let (x, w) = (integers(x, 1, 4), integers(w, 2, 3));
    let bias = integers(&[w.shape()[0]], 3, 9);
    let want = conv(x.view(), w.view(), Some(bias.view()), spec).expect("reference");
    let (xt, wt, bt) = (upload(&x), upload(&w), upload(&bias));
    assert_eq!(options.output_shape(x.shape(), w.shape()).expect("shape"), want.shape());
    for kernel in to_run(options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates")) {
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
        ([2, 2], [1, 1], [(3, 3), (3, 3)], 1, [2, 3, 17, 24], [21, 3, 7, 7]),
        ([3, 1], [2, 1], [(1, 4), (0, 5)], 2, [1, 8, 11, 9], [34, 4, 2, 5]),
        ([1, 2], [1, 1], [(1, 1), (1, 0)], 1, [3, 1, 5, 31], [17, 1, 3, 3]),
    ] {
        let (options, spec) = both(stride, dilation, pads, groups);
        check(&options, &spec, &x, &w);
    }
}

/// Every instance of the depthwise kernel: kernel sizes, strides, aligned and odd rows, any multiplier, flipped.
#[test]
fn depthwise() {
    // A shader for 16 lanes takes llvmpipe a quarter of a minute to compile: of these shapes it runs one in three.
    let count = if gpu().profile().subgroup == Some(16) { 1 } else { 3 };
    for (kernel, pad) in [([3, 3], 1), ([5, 5], 2), ([7, 7], 3), ([1, 3], 1), ([1, 5], 2), ([1, 7], 3)] {
        let pad_h = if kernel[0] == 1 { 0 } else { pad };
        for stride in [1, 2] {
            let shapes = [(9, 12, pad, 1, false), (8, 7, pad + 1, 2, true), (13, 16, pad - 1, 1, true)];
            for (h, w, left, multiplier, flip) in shapes.into_iter().take(count) {
                let (options, mut spec) = both([stride; 2], [1; 2], [(pad_h, pad_h), (left, pad)], 6);
                spec.flip_kernel = flip;
                check(&options.flip_kernel(flip), &spec, &[2, 6, h, w], &[6 * multiplier, 1, kernel[0], kernel[1]]);
            }
        }
    }
    let (options, spec) = both([2], [1], [(2, 1)], 5);
    check::<1>(&options, &spec, &[3, 5, 22], &[10, 1, 5]);
    // Rows of more threads than a subgroup has lanes, of full and of odd width; strips that end early.
    for (stride, w) in [([1; 2], 44), ([1; 2], 37), ([2; 2], 80), ([2; 2], 71)] {
        let (options, spec) = both(stride, [1; 2], [(1, 1); 2], 3);
        check(&options, &spec, &[1, 3, 11, w], &[3, 1, 3, 3]);
        let (options, spec) = both(stride, [1; 2], [(3, 3); 2], 3);
        check(&options, &spec, &[1, 3, 11, w], &[3, 1, 7, 7]);
    }
    // A single row is cut into parts.
    for (stride, pads, length) in [(1, (3, 3), 1036), (2, (3, 3), 1036), (1, (0, 4), 601)] {
        let (options, spec) = both([stride], [1], [pads], 2);
        check::<1>(&options, &spec, &[1, 2, length], &[4, 1, 7]);
    }
}

/// Dilations that share nothing, something and everything with the stride, and phases that are not full.
#[test]
fn depthwise_dilated() {
    for (stride, dilation, pads, kernel, h, w) in [
        ([1, 1], [2, 2], [(2, 2), (2, 2)], [3, 3], 9, 15),
        ([1, 1], [3, 4], [(3, 0), (5, 4)], [3, 3], 17, 40),
        ([2, 2], [2, 2], [(2, 2), (2, 2)], [3, 3], 11, 12),
        ([2, 2], [3, 3], [(3, 3), (1, 3)], [5, 5], 20, 37),
        ([4, 2], [6, 3], [(6, 6), (3, 3)], [3, 3], 25, 22),
        ([1, 1], [12, 12], [(12, 12), (12, 12)], [3, 3], 7, 5),
        ([3, 1], [1, 2], [(0, 0), (2, 2)], [1, 3], 7, 12),
    ] {
        let (options, spec) = both(stride, dilation, pads, 3);
        check(&options, &spec, &[2, 3, h, w], &[6, 1, kernel[0], kernel[1]]);
    }
    for (stride, dilation) in [(1, 16), (2, 9), (4, 6), (1, 40)] {
        let (options, spec) = both([stride], [dilation], [(dilation, 5)], 3);
        check::<1>(&options, &spec, &[2, 3, 150], &[3, 1, 5]);
    }
}

/// Few channels a group: tiles of output channels that are not full, strides, aligned and odd rows, flipped, one dimension.
#[test]
fn grouped() {
    for (cg, og, groups) in [(4, 4, 3), (2, 6, 2), (5, 3, 2), (16, 9, 2)] {
        for (stride, h, w, left, flip) in
            [(1, 9, 12, 1, false), (1, 6, 37, 0, true), (1, 7, 44, 1, true), (2, 10, 80, 1, false), (2, 9, 35, 2, true)]
        {
            let (options, mut spec) = both([stride; 2], [1; 2], [(1, 1), (left, 1)], groups);
            spec.flip_kernel = flip;
            check(&options.flip_kernel(flip), &spec, &[2, cg * groups, h, w], &[og * groups, cg, 3, 3]);
        }
    }
    for stride in [1, 2] {
        let (options, spec) = both([stride], [1], [(1, 1)], 4);
        check::<1>(&options, &spec, &[2, 16, 52], &[24, 4, 3]);
    }
}

#[test]
fn one_and_three_dimensions() {
    let (options, spec) = both([2], [3], [(4, 1)], 2);
    check::<1>(&options, &spec, &[2, 6, 41], &[8, 3, 4]);
    let (options, spec) = both([1, 2, 1], [1, 1, 2], [(1, 0), (1, 1), (2, 3)], 1);
    check::<3>(&options, &spec, &[2, 5, 4, 7, 6], &[9, 5, 2, 3, 3]);
    // One plane that lies in the padding alone, which kernels of two dimensions cannot take.
    for groups in [1, 2, 8] {
        let (options, spec) = both([2, 1, 1], [1, 1, 1], [(1, 0), (1, 1), (1, 1)], groups);
        check::<3>(&options, &spec, &[1, 8, 1, 5, 4], &[8, 8 / groups, 1, 3, 3]);
    }
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
        // Whole vec4s under a kernel of one tap: the pointwise kernel would read the input as if its padding were written out.
        let (options, mut spec) = both([1, 1], [1, 1], [(1, 1), (2, 2)], 1);
        spec.border = mode;
        check(&options.border(border), &spec, &[1, 4, 2, 4], &[5, 4, 1, 1]);
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
}

/// Bias, residual and every activation, on every kernel: the order is bias, residual, activation.
#[test]
fn epilogue() {
    for (x, w, groups, pads) in [
        ([2, 12, 6, 6], [16, 12, 1, 1], 1, [(0, 0); 2]),
        ([2, 6, 7, 8], [10, 6, 3, 3], 1, [(1, 1); 2]),
        ([2, 3, 7, 8], [18, 3, 3, 3], 1, [(1, 1); 2]),
        ([1, 3, 7, 9], [16, 3, 5, 5], 1, [(2, 2); 2]),
        ([1, 8, 7, 9], [16, 8, 3, 3], 1, [(1, 1); 2]),
        ([2, 6, 7, 8], [6, 1, 3, 3], 6, [(1, 1); 2]),
        ([1, 6, 8, 7], [6, 1, 5, 5], 6, [(2, 2); 2]),
        ([2, 6, 7, 8], [10, 3, 3, 3], 2, [(1, 1); 2]),
        ([1, 8, 6, 7], [8, 4, 3, 3], 2, [(1, 1); 2]),
    ] {
        let (x, w) = (integers(&x, 1, 2), integers(&w, 2, 2));
        let bias = integers(&[w.shape()[0]], 3, 5);
        let (options, spec) = both([1; 2], [1; 2], pads, groups);
        let sums = conv(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
        let residual = integers(sums.shape(), 4, 5);
        for (activation, kind) in [
            (Activation::Identity, ActivationKind::Identity),
            (Activation::Relu, ActivationKind::Relu),
            (Activation::Relu6, ActivationKind::Relu6),
            (Activation::LeakyRelu(0.25), ActivationKind::LeakyRelu(0.25)),
        ] {
            let want = wgconv::reference::epilogue(sums.clone(), Some(residual.view()), kind).expect("reference");
            let options = options.clone().activation(activation).residual(&upload(&residual));
            for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
                let (out, options) = (poisoned(want.shape()), options.clone().kernel(kernel));
                options.forward_into(&upload(&x), &upload(&w), Some(&upload(&bias)), &out).expect("forward");
                assert_exact(&format!("{kernel:?} {activation:?}"), &out.to_array().expect("read"), &want);
            }
        }
    }
}

/// A NaN or an infinity in one input element reaches exactly the outputs that have it in their window; one in a weight reaches nothing
/// through a tap in the zero padding. relu keeps NaN.
#[test]
fn nan_stays_in_its_window() {
    for (x, w, groups, (stride, dilation), pad) in [
        ([1, 5, 9, 12], [6, 5, 3, 3], 1, (1, 1), 1),
        ([1, 8, 10, 8], [40, 8, 3, 3], 1, (2, 1), 1),
        ([1, 8, 6, 6], [16, 8, 1, 1], 1, (1, 1), 0),
        ([1, 3, 9, 12], [17, 3, 7, 7], 1, (2, 1), 3),
        ([1, 8, 7, 5], [16, 8, 1, 1], 1, (1, 1), 2),
        ([1, 6, 9, 12], [6, 1, 3, 3], 6, (1, 1), 1),
        ([1, 6, 9, 11], [6, 1, 5, 5], 6, (2, 1), 2),
        ([1, 6, 13, 17], [6, 1, 3, 3], 6, (1, 2), 2),
        ([1, 8, 9, 12], [8, 4, 3, 3], 2, (1, 1), 1),
        ([1, 8, 10, 11], [10, 4, 3, 3], 2, (2, 1), 1),
    ] {
        let (x0, w0) = (integers(&x, 1, 4), integers(&w, 2, 3).mapv(|v| if v == 0.0 { 1.0 } else { v }));
        let (options, spec) = both([stride; 2], [dilation; 2], [(pad, pad); 2], groups);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut xs, mut first, mut last) = (x0.clone(), w0.clone(), w0.clone());
            // In the middle of the input, and in the first and the last tap of a weight: those lie in the padding for other outputs.
            xs[[0, 2, 4, 3]] = value;
            first[[3, 0, 0, 0]] = value;
            last[[3, 0, w[2] - 1, w[3] - 1]] = value;
            for (x, w) in [(&xs, &w0), (&x0, &first), (&x0, &last)] {
                let want = conv(x.view(), w.view(), None, &spec).expect("reference");
                assert!(want.iter().any(|v| v.is_finite()) && want.iter().any(|v| !v.is_finite()) || pad == 0);
                for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
                    let got = options.clone().kernel(kernel).activation(Activation::LeakyRelu(1.0));
                    let got = got.forward(&upload(x), &upload(w), None).and_then(|y| y.to_array()).expect("forward");
                    for ((index, g), v) in got.indexed_iter().zip(&want) {
                        let same = if v.is_nan() { g.is_nan() } else { f64::from(*g) == *v };
                        assert!(same, "{kernel:?} {value} at {index:?}: got {g}, want {v}");
                    }
                }
            }
        }
    }
}

/// Every tile of the workgroup-memory kernel, with positions in multiples of four and odd ones; two with another border.
#[test]
fn tiled_by_every_tile() {
    use BorderMode::{Circular, Zeros};
    for (tile, x, w, groups, mode) in [
        ("BM=128,BN=128,BK=16", [1, 28, 16, 16], [128, 28, 1, 1], 1, Zeros),
        ("BM=128,BN=128,BK=16", [1, 30, 15, 16], [256, 15, 3, 3], 2, Zeros),
        ("BM=128,BN=128,BK=8", [1, 6, 16, 16], [125, 6, 1, 1], 1, Zeros),
        ("BM=128,BN=128,BK=8", [3, 5, 5, 17], [126, 5, 1, 3], 1, Zeros),
        ("BM=64,BN=64,BK=16", [2, 13, 8, 15], [64, 13, 3, 3], 1, Zeros),
        ("BM=64,BN=64,BK=16", [1, 6, 17, 14], [61, 6, 3, 2], 1, Zeros),
        ("BM=32,BN=64,BK=16", [2, 18, 8, 15], [32, 18, 3, 3], 1, Zeros),
        ("BM=32,BN=64,BK=16", [1, 7, 17, 14], [29, 7, 3, 2], 1, Circular),
        ("BM=32,BN=32,BK=16", [1, 9, 4, 7], [32, 9, 3, 3], 1, Circular),
        ("BM=32,BN=32,BK=16", [3, 9, 3, 2], [19, 9, 3, 3], 1, Zeros),
    ] {
        let pads = [(w[2] / 2, w[2] / 2), (w[3] / 2, w[3] - 1)];
        let (options, mut spec) = both([1; 2], [1; 2], pads, groups);
        spec.border = mode;
        let options = options.border(if mode == Circular { Border::Circular } else { Border::Zeros });
        let plan = options.clone().kernel(ConvKernel::Tiled).plan(gpu().profile(), &x, &w).expect("plan").to_string();
        if gpu().profile().class == AdapterClass::Cpu && gpu().profile().workgroup_bytes >= 32 << 10 {
            assert!(plan.contains(tile), "{tile}: {plan}");
        }
        check(&options, &spec, &x, &w);
    }
}

/// Few positions and a long K: the sums are made in parts and added by a second dispatch, which has the epilogue and the second look
/// at what is not finite. Odd and even planes, groups, three dimensions, windows of one image.
#[test]
fn tiled_with_a_split_k() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 96 << 10, ..wgpu::Limits::default() };
    let windows = Gpu::builder().adapter_from_env().limits(limits).build_blocking().expect("adapter");
    for (gpu, x, w, groups, pads) in [
        (&gpu(), vec![1, 75, 5, 5], vec![9, 75, 3, 3], 1, vec![(1, 1); 2]),
        (&gpu(), vec![1, 160, 4, 6], vec![18, 80, 3, 3], 2, vec![(1, 1), (0, 2)]),
        (&gpu(), vec![1, 40, 3, 3, 4], vec![5, 40, 3, 3, 3], 1, vec![(1, 1); 3]),
        (&windows, vec![2, 600, 5, 5], vec![4, 600, 1, 1], 1, vec![(0, 0); 2]),
    ] {
        let rank = pads.len();
        let spec = ConvSpec { groups, pads: pads.clone(), ..ConvSpec::new(rank) };
        let (x, w) = (integers(&x, 1, 2), integers(&w, 2, 2).mapv(|v| if v == 0.0 { 1.0 } else { v }));
        let bias = integers(&w.shape()[..1], 3, 5);
        let mut broken = w.clone();
        broken[&[3, 1, 0, 0, 0][..rank + 2]] = f32::NEG_INFINITY;
        for w in [w, broken] {
            let sums = conv(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
            let residual = integers(sums.shape(), 4, 5);
            let activation = ActivationKind::LeakyRelu(0.25);
            let want = wgconv::reference::epilogue(sums, Some(residual.view()), activation).expect("reference");
            let [xt, wt, bt, rt] = [&x, &w, &bias, &residual].map(|a| Tensor::from_array(gpu, a).expect("upload"));
            let got = if rank == 3 {
                split(Conv::<3>::new().padding([pads[0], pads[1], pads[2]]).groups(groups), (&xt, &wt, &bt, &rt))
            } else {
                split(Conv::<2>::new().padding([pads[0], pads[1]]).groups(groups), (&xt, &wt, &bt, &rt))
            };
            assert_near(&format!("x {:?} w {:?}", x.shape(), w.shape()), &got, &want, |_| 0.0);
        }
    }
}

/// The same on reals, within the bound of a plain sum: the parts and the sum over them are one tree of additions, in which a product
/// meets as many roundings at most as there are products, bias and residual. The leaky relu moves no two values further apart.
#[test]
fn reals_with_a_split_k_keep_the_bound() {
    for (x, w, groups, pads) in
        [([1, 75, 5, 5], [9, 75, 3, 3], 1, [(1, 1), (1, 1)]), ([1, 160, 4, 6], [18, 80, 3, 3], 2, [(1, 1), (0, 2)])]
    {
        let (x, w, bias) = (reals(&x, 1), reals(&w, 2), reals(&[w[0]], 3));
        let (options, spec) = both([1; 2], [1; 2], pads, groups);
        let sums = conv(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
        let residual = reals(sums.shape(), 4);
        let absolute = conv(abs(&x).view(), abs(&w).view(), Some(abs(&bias).view()), &spec).expect("reference");
        let absolute = absolute + residual.mapv(|v| f64::from(v.abs()));
        let n = w.len() / w.shape()[0] + 2;
        let bound = linear_bound(n, &absolute, largest(x.view()) + largest(w.view()), 1.001);
        let activation = ActivationKind::LeakyRelu(0.25);
        let want = wgconv::reference::epilogue(sums, Some(residual.view()), activation).expect("reference");
        let got = split(options, (&upload(&x), &upload(&w), &upload(&bias), &upload(&residual)));
        assert_bounded(&format!("x {:?} w {:?}", x.shape(), w.shape()), &got, &want, &bound);
    }
}

/// What the tiled kernel gives with a plan that must have a second step, the same bits twice.
fn split<const R: usize>(
    options: Conv<R>,
    (x, w, bias, residual): (&Tensor, &Tensor, &Tensor, &Tensor),
) -> ArrayD<f32> {
    let options = options.kernel(ConvKernel::Tiled).activation(Activation::LeakyRelu(0.25)).residual(residual);
    let plan = options.plan(x.gpu().profile(), x.shape(), w.shape()).expect("plan");
    let in_parts = plan.dispatches() > 1 && plan.to_string().contains("tiled_sum") && plan.scratch_bytes() > 0;
    assert!(in_parts, "{plan}");
    let run = || options.forward(x, w, Some(bias)).and_then(|y| y.to_array()).expect("forward");
    let (first, second): (ArrayD<f32>, ArrayD<f32>) = (run(), run());
    assert!(first.iter().zip(&second).all(|(a, b)| a.to_bits() == b.to_bits()), "the same plan gives the same bits");
    first
}

#[derive(Clone, Debug)]
struct Random {
    x: [usize; 4],
    w: [usize; 4],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: [(usize, usize); 2],
    groups: usize,
    seed: u64,
}

fn random() -> impl Strategy<Value = Random> {
    let channels = (1..3usize, 1..20usize, 1..20usize);
    let kernel = [1..4usize, 1..4usize];
    let extra = [0..12usize, 0..12usize];
    let steps = ([1..3usize, 1..3usize], [1..3usize, 1..3usize]);
    let pads = [(0..3usize, 0..3usize), (0..3usize, 0..3usize)];
    (channels, kernel, extra, steps, pads, 1..3usize, any::<u64>()).prop_map(
        |((groups, cg, og), kernel, extra, (stride, dilation), pads, batch, seed)| {
            let extent = |a: usize| dilation[a] * (kernel[a] - 1) + 1 + extra[a];
            Random {
                x: [batch, groups * cg, extent(0), extent(1)],
                w: [groups * og, cg, kernel[0], kernel[1]],
                stride,
                dilation,
                pads,
                groups,
                seed,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Reals, any geometry, every kernel: within `c*u*n*S + n*2^-126*(...)`. Each sum is plain, in some order, with n products: at most n
    /// roundings of u = eps/2 each reach a product, and c = 1.001 covers `(1+u)^n - 1 - n*u` up to n = 16,000. Winograd's sums are not
    /// plain and have a bound of their own.
    #[test]
    fn random_problems_keep_the_bound(p in random()) {
        let (x, w) = (reals(&p.x, p.seed), reals(&p.w, p.seed + 1));
        let bias = reals(&[p.w[0]], p.seed + 2);
        let (options, spec) = both(p.stride, p.dilation, p.pads, p.groups);
        let want = conv(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
        let absolute = conv(abs(&x).view(), abs(&w).view(), Some(abs(&bias).view()), &spec).expect("reference");
        let n = w.len() / p.w[0] + 1;
        let plain = linear_bound(n, &absolute, largest(x.view()) + largest(w.view()), 1.001);
        for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
            let out = poisoned(want.shape());
            let options = options.clone().kernel(kernel);
            options.forward_into(&upload(&x), &upload(&w), Some(&upload(&bias)), &out).expect("forward");
            let got = out.to_array().expect("read");
            // F(4x4) is not offered: that takes fast_math.
            let own = (kernel == ConvKernel::Winograd).then(|| winograd::bound(2, &x, &w, &bias, &spec));
            assert_bounded(&format!("{kernel:?} {p:?}"), &got, &want, own.as_ref().unwrap_or(&plain));
            // The same plan on the same device gives the same bits.
            let again = options.forward(&upload(&x), &upload(&w), Some(&upload(&bias))).and_then(|y| y.to_array());
            prop_assert!(again.expect("again").iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
