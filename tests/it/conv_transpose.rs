//! Transposed convolution: every kernel that is offered for a problem against the reference.

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;
use wgconv::reference::{ActivationKind, ConvTransposeSpec, apply, conv_transpose};
use wgconv::{
    Activation, Cache, ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeKernel, Error,
    Gpu, Profile, Tensor, ndarray, wgpu,
};

use crate::common::{
    abs, assert_bounded, assert_exact, gpu, integers, largest, linear_bound, poisoned, reals, to_run, upload,
};

/// Stride, dilation, pads, output padding, groups, input shape, weight shape.
type Case<const R: usize, const S: usize> =
    ([usize; R], [usize; R], [(usize, usize); R], [usize; R], usize, [usize; S], [usize; S]);

/// The same options for both sides.
fn both<const R: usize, const S: usize>(case: &Case<R, S>) -> (ConvTranspose<R>, ConvTransposeSpec) {
    let (stride, dilation, pads, output_padding, groups, ..) = *case;
    let options = ConvTranspose::new().stride(stride).dilation(dilation).padding(pads);
    let spec = ConvTransposeSpec {
        stride: stride.into(),
        dilation: dilation.into(),
        pads: pads.into(),
        output_padding: output_padding.into(),
        groups,
    };
    (options.output_padding(output_padding).groups(groups), spec)
}

/// Runs every kernel offered for the problem into a poisoned output and compares exactly.
#[track_caller]
fn check<const R: usize, const S: usize>(case: &Case<R, S>) {
    let (options, spec) = both(case);
    let (x, w) = (integers(&case.5, 1, 4), integers(&case.6, 2, 3));
    let bias = integers(&[case.6[1] * case.4], 3, 9);
    let want = conv_transpose(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
    let (xt, wt, bt) = (upload(&x), upload(&w), upload(&bias));
    assert_eq!(options.output_shape(x.shape(), w.shape()).expect("shape"), want.shape());
    for kernel in to_run(options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates")) {
        let out = poisoned(want.shape());
        options.clone().kernel(kernel).forward_into(&xt, &wt, Some(&bt), &out).expect("forward");
        assert_exact(&format!("{kernel:?} {case:?}"), &out.to_array().expect("read"), &want);
    }
}

#[test]
fn awkward_2d() {
    let cases: [Case<2, 4>; 17] = [
        // FCN's and DCGAN's up-sampling, and a stride of one.
        ([2, 2], [1, 1], [(1, 1), (1, 1)], [0, 0], 1, [2, 21, 9, 6], [21, 21, 4, 4]),
        ([2, 2], [1, 1], [(1, 1), (1, 1)], [1, 1], 1, [1, 8, 5, 7], [8, 16, 3, 3]),
        ([1, 1], [1, 1], [(1, 1), (1, 1)], [0, 0], 1, [2, 5, 6, 6], [5, 9, 3, 3]),
        ([1, 1], [1, 1], [(0, 0), (0, 0)], [0, 0], 1, [1, 8, 4, 4], [8, 10, 1, 1]),
        // Strides beyond the kernel: some outputs get only the bias.
        ([3, 4], [1, 1], [(0, 0), (0, 0)], [2, 3], 1, [1, 3, 4, 3], [3, 5, 2, 1]),
        ([5, 1], [1, 1], [(0, 1), (0, 0)], [0, 0], 1, [1, 4, 3, 5], [4, 4, 1, 3]),
        // Stride and dilation with and without a common divisor; an output padding that only the dilation allows.
        ([2, 3], [3, 2], [(2, 0), (1, 3)], [2, 1], 1, [2, 5, 4, 5], [5, 7, 3, 4]),
        ([4, 2], [2, 4], [(0, 3), (5, 0)], [1, 3], 1, [1, 4, 5, 6], [4, 12, 3, 3]),
        ([6, 4], [4, 6], [(3, 2), (0, 1)], [5, 0], 1, [1, 3, 4, 3], [3, 4, 4, 3]),
        ([3, 2], [3, 2], [(1, 1), (0, 0)], [1, 1], 1, [1, 4, 3, 4], [4, 6, 3, 2]),
        // Groups: of some channels, depthwise, depthwise with a multiplier.
        ([2, 1], [1, 2], [(1, 0), (2, 2)], [0, 0], 3, [2, 9, 6, 7], [9, 5, 3, 2]),
        ([2, 2], [1, 1], [(1, 1), (1, 1)], [0, 0], 6, [2, 6, 5, 9], [6, 1, 4, 4]),
        ([2, 2], [1, 1], [(0, 1), (1, 0)], [1, 0], 4, [1, 4, 4, 4], [4, 2, 3, 3]),
        // Padding that leaves a single position, of a part that is not the first, and one beyond the kernel.
        ([3, 3], [1, 1], [(4, 4), (5, 3)], [0, 0], 1, [1, 5, 3, 3], [5, 4, 3, 3]),
        ([2, 2], [1, 1], [(3, 3), (4, 2)], [0, 0], 1, [1, 2, 6, 7], [2, 33, 2, 3]),
        // One input, and strides beyond the output.
        ([7, 9], [1, 2], [(0, 0), (0, 0)], [3, 0], 1, [3, 6, 1, 1], [6, 8, 4, 4]),
        ([40, 8], [1, 1], [(10, 25), (0, 0)], [0, 0], 1, [1, 4, 2, 3], [4, 5, 3, 16]),
    ];
    cases.iter().for_each(check);
}

#[test]
fn one_and_three_dimensions() {
    let cases: [Case<1, 3>; 5] = [
        ([4], [1], [(2, 2)], [0], 1, [2, 8, 33], [8, 12, 8]),
        ([3], [2], [(4, 1)], [2], 2, [2, 6, 41], [6, 4, 4]),
        ([8], [1], [(0, 0)], [7], 1, [1, 3, 5], [3, 4, 3]),
        ([1], [5], [(3, 0)], [4], 1, [1, 4, 9], [4, 4, 3]),
        // Steps that are never taken may be of any size.
        ([1 << 62], [1 << 61], [(0, 0)], [3], 1, [2, 5, 1], [5, 7, 1]),
    ];
    cases.iter().for_each(check);
    let cases: [Case<3, 5>; 4] = [
        ([2, 2, 2], [1, 1, 1], [(1, 1), (1, 1), (1, 1)], [0, 0, 0], 1, [2, 5, 2, 3, 4], [5, 8, 4, 4, 4]),
        ([1, 2, 3], [2, 1, 2], [(1, 0), (0, 2), (2, 3)], [1, 1, 0], 2, [2, 4, 3, 4, 3], [4, 5, 2, 3, 4]),
        ([3, 1, 2], [1, 3, 1], [(0, 0), (1, 1), (0, 0)], [2, 0, 1], 1, [1, 4, 3, 3, 5], [4, 3, 2, 2, 1]),
        ([2, 3, 2], [1, 1, 1], [(0, 1), (1, 1), (1, 0)], [0, 2, 1], 3, [1, 3, 2, 3, 3], [3, 1, 3, 2, 3]),
    ];
    cases.iter().for_each(check);
}

#[test]
fn subgroup_is_offered_and_chosen() {
    let options = ConvTranspose2d::new().stride(2).padding(1);
    let profile = Profile { subgroup: Some(8), ..Profile::baseline() };
    let chosen =
        |profile: &Profile, x: &[usize], w: &[usize]| options.candidates(profile, x, w).expect("candidates")[0];
    assert_eq!(chosen(&profile, &[1, 21, 64, 64], &[21, 21, 4, 4]), ConvTransposeKernel::Subgroup);
    assert_eq!(chosen(&Profile::baseline(), &[1, 21, 64, 64], &[21, 21, 4, 4]), ConvTransposeKernel::Direct);
    // All phases go in one dispatch, after the copy into blocks.
    assert_eq!(options.plan(&profile, &[1, 21, 64, 64], &[21, 21, 4, 4]).expect("plan").dispatches(), 2);
}

/// Bias, then residual, then activation; and neither bias nor residual.
#[test]
fn epilogue() {
    let case: Case<2, 4> = ([2, 3], [1, 1], [(1, 0), (0, 1)], [0, 1], 2, [2, 6, 5, 4], [6, 5, 3, 2]);
    let (options, spec) = both(&case);
    let (x, w, bias) = (integers(&case.5, 1, 4), integers(&case.6, 2, 3), integers(&[10], 3, 9));
    let plain = conv_transpose(x.view(), w.view(), None, &spec).expect("reference");
    let residual = integers(plain.shape(), 4, 9);
    let biased = conv_transpose(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
    let full = (biased + residual.mapv(f64::from)).mapv(|v| apply(ActivationKind::LeakyRelu(0.25), v));
    let (xt, wt, bt, rt) = (upload(&x), upload(&w), upload(&bias), upload(&residual));
    for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
        let options = options.clone().kernel(kernel);
        let got = options.forward(&xt, &wt, None).expect("forward").to_array().expect("read");
        assert_exact(&format!("{kernel:?} plain"), &got, &plain);
        let options = options.residual(&rt).activation(Activation::LeakyRelu(0.25));
        let got = options.forward(&xt, &wt, Some(&bt)).expect("forward").to_array().expect("read");
        assert_exact(&format!("{kernel:?} full"), &got, &full);
        let mut encoder = gpu().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let encoded = options.encode(&mut encoder, &xt, &options.prepare(&wt, xt.shape()).expect("prepare"), Some(&bt));
        gpu().queue().submit([encoder.finish()]);
        let got = encoded.expect("encode").submitted().to_array().expect("read");
        assert_exact(&format!("{kernel:?} encoded"), &got, &full);
    }
}

/// A NaN in the input stays in the outputs that its taps reach, an infinite weight in those of its tap.
#[test]
fn not_finite_stays_in_its_window() {
    let case: Case<2, 4> = ([2, 2], [1, 1], [(1, 1), (1, 1)], [0, 0], 1, [1, 5, 5, 6], [5, 6, 3, 3]);
    let (options, spec) = both(&case);
    let (x, w) = (integers(&case.5, 1, 4), reals(&case.6, 2).mapv(|v| v + 2.0));
    let run = |kernel, x: &ArrayD<f32>, w: &ArrayD<f32>| {
        options.clone().kernel(kernel).forward(&upload(x), &upload(w), None).expect("forward").to_array().expect("read")
    };
    let mut poisoned_x = x.clone();
    poisoned_x[[0, 2, 3, 1]] = f32::NAN;
    let want = conv_transpose(poisoned_x.view(), w.view(), None, &spec).expect("reference");
    for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
        let got = run(kernel, &poisoned_x, &w);
        assert!(got.iter().zip(&want).all(|(g, w)| g.is_nan() == w.is_nan()), "{kernel:?}");
    }
    // Ones, so that the infinity meets no zero but those beyond the input's ends.
    let ones = ArrayD::from_elem(IxDyn(&case.5), 1.0f32);
    let mut infinite = w.clone();
    infinite[[1, 3, 0, 2]] = f32::INFINITY;
    let want = conv_transpose(ones.view(), infinite.view(), None, &spec).expect("reference");
    for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
        let got = run(kernel, &ones, &infinite);
        let same = got.iter().zip(&want).all(|(g, w)| !g.is_nan() && g.is_infinite() == w.is_infinite());
        assert!(same, "{kernel:?}");
    }
}

/// A device whose bindings hold 4 KiB: images, channels, rows and input channels are split.
#[test]
fn windows_of_large_tensors() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 4096, ..wgpu::Limits::default() };
    let gpu = Gpu::builder().adapter_from_env().cache(Cache::Off).limits(limits).build_blocking().expect("gpu");
    let cases: [Case<2, 4>; 5] = [
        // Batches; output channels and input channels (the weight is too large); rows of the output; rows of both.
        ([2, 2], [1, 1], [(1, 1), (1, 1)], [0, 0], 1, [5, 4, 6, 6], [4, 4, 3, 3]),
        ([2, 1], [1, 1], [(1, 1), (1, 1)], [0, 0], 2, [1, 24, 5, 5], [24, 13, 3, 3]),
        ([1, 1], [1, 1], [(0, 0), (0, 0)], [0, 0], 1, [2, 2, 2, 2], [2, 3, 20, 17]),
        ([3, 2], [2, 1], [(2, 0), (0, 1)], [1, 1], 1, [1, 3, 12, 21], [3, 2, 3, 2]),
        ([2, 3], [1, 2], [(3, 1), (0, 2)], [0, 0], 1, [2, 2, 37, 31], [2, 2, 4, 3]),
    ];
    for case in &cases {
        let (options, spec) = both(case);
        windows(&gpu, &options, &spec, &case.5, &case.6);
    }
    let (options, spec) = both::<1, 3>(&([3], [2], [(2, 1)], [2], 1, [2, 2, 1500], [2, 3, 4]));
    windows(&gpu, &options, &spec, &[2, 2, 1500], &[2, 3, 4]);
    // One tap's plane over the binding cannot be split.
    let error = ConvTranspose1d::new().plan(gpu.profile(), &[1, 1, 2], &[1, 1, 2000]);
    assert!(matches!(error, Err(Error::TooLarge { argument: "weight", .. })), "{error:?}");
}

#[track_caller]
fn windows<const R: usize>(gpu: &Gpu, options: &ConvTranspose<R>, spec: &ConvTransposeSpec, x: &[usize], w: &[usize]) {
    let plan = options.plan(gpu.profile(), x, w).expect("plan");
    assert!(plan.dispatches() > 1, "not split: {plan}");
    let (x, w) = (integers(x, 1, 4), integers(w, 2, 3));
    let bias = integers(&[plan.output_shape()[1]], 3, 9);
    let residual = integers(plan.output_shape(), 4, 9);
    let want = conv_transpose(x.view(), w.view(), Some(bias.view()), spec).expect("reference");
    let want = (want + residual.mapv(f64::from)).mapv(|v| v.max(0.0));
    let tensor = |array: &ArrayD<f32>| Tensor::from_array(gpu, array).expect("upload");
    let options = options.clone().residual(&tensor(&residual)).activation(Activation::Relu);
    for kernel in options.candidates(gpu.profile(), x.shape(), w.shape()).expect("candidates") {
        let out = tensor(&ArrayD::from_elem(want.shape(), f32::NAN));
        let options = options.clone().kernel(kernel);
        options.forward_into(&tensor(&x), &tensor(&w), Some(&tensor(&bias)), &out).expect("forward");
        assert_exact(&format!("{kernel:?} {options:?}"), &out.to_array().expect("read"), &want);
    }
}

/// One axis: extent, kernel, stride, dilation, output padding, pads; the output not empty.
fn axis() -> impl Strategy<Value = (usize, usize, usize, usize, usize, (usize, usize))> {
    (1..7usize, 1..5usize, 1..5usize, 1..4usize).prop_flat_map(|(extent, k, stride, dilation)| {
        let full = (extent - 1) * stride + dilation * (k - 1) + 1;
        let sides = (0..full.min(6), 0..full.min(6)).prop_filter("an empty output", move |(a, b)| a + b < full);
        (Just(extent), Just(k), Just(stride), Just(dilation), 0..stride.max(dilation), sides)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The derived bound with c = 1: each product is rounded once, and each of at most n additions once.
    #[test]
    fn random(h in axis(), w in axis(), n in 1..3usize, g in 1..4usize, cg in 1..7usize, og in 1..10usize, seed: u64) {
        let case: Case<2, 4> = (
            [h.2, w.2], [h.3, w.3], [h.5, w.5], [h.4, w.4], g, [n, g * cg, h.0, w.0], [g * cg, og, h.1, w.1],
        );
        let (options, spec) = both(&case);
        let (x, w, bias) = (reals(&case.5, seed), reals(&case.6, seed ^ 1), reals(&[g * og], seed ^ 2));
        let want = conv_transpose(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
        let (x_abs, w_abs, bias_abs) = (abs(&x), abs(&w), abs(&bias));
        let absolute = conv_transpose(x_abs.view(), w_abs.view(), Some(bias_abs.view()), &spec).expect("reference");
        let products = cg * case.6[2] * case.6[3] + 1;
        let bound = linear_bound(products, &absolute, largest(x.view().into_dyn()) + largest(w.view().into_dyn()), 1.0);
        for kernel in options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
            let out = poisoned(want.shape());
            let options = options.clone().kernel(kernel);
            options.forward_into(&upload(&x), &upload(&w), Some(&upload(&bias)), &out).expect("forward");
            assert_bounded(&format!("{kernel:?} {case:?}"), &out.to_array().expect("read"), &want, &bound);
        }
    }
}

#[test]
fn mistakes_are_typed_errors() {
    let (x, w) = ([1, 4, 5, 5], [4, 3, 3, 3]);
    let ok = ConvTranspose2d::new();
    for (argument, options, x, w) in [
        ("input", ok.clone(), &[1, 4, 5][..], &w[..]),
        ("input", ok.clone(), &[1, 4, 0, 5], &w),
        ("weight", ok.clone(), &x, &[4, 3, 3]),
        ("weight", ok.clone(), &x, &[4, 3, 0, 3]),
        ("weight", ok.clone(), &x, &[3, 3, 3, 3]),
        ("groups", ok.clone().groups(0), &x, &w),
        ("groups", ok.clone().groups(3), &x, &w),
        ("groups", ok.clone().groups(1 << 62), &x, &w),
        ("stride", ok.clone().stride([1, 0]), &x, &w),
        ("stride", ok.clone().stride(1 << 62), &x, &w),
        ("dilation", ok.clone().dilation(0), &x, &w),
        ("dilation", ok.clone().dilation(usize::MAX), &x, &w),
        ("output_padding", ok.clone().output_padding(1), &x, &w),
        ("output_padding", ok.clone().stride(2).dilation(3).output_padding(3), &x, &w),
        ("padding", ok.clone().padding([(3, 4), (0, 0)]), &x, &w),
        ("padding", ok.clone().padding(usize::MAX), &x, &w),
    ] {
        let error = options.output_shape(x, w).expect_err(argument);
        assert!(matches!(error, Error::Invalid { argument: a, .. } if a == argument), "{argument}: {error}");
    }
    for (argument, options, x, w) in [
        ("input", ok.clone(), [1 << 40, 4, 1 << 40, 5], w),
        ("weight", ok.clone(), x, [4, 1 << 62, 3, 3]),
        ("output", ok.clone().stride(1 << 20), x, w),
    ] {
        let error = options.output_shape(&x, &w).expect_err(argument);
        assert!(matches!(error, Error::TooLarge { argument: a, .. } if a == argument), "{argument}: {error}");
    }
    let error = ok.clone().kernel(ConvTransposeKernel::Subgroup).plan(&Profile::baseline(), &x, &w);
    assert!(matches!(error, Err(Error::Invalid { argument: "kernel", .. })));
    let tensor = |shape: &[usize]| poisoned(shape);
    let (xt, wt) = (tensor(&x), tensor(&w));
    for (argument, result) in [
        ("bias", ok.forward(&xt, &wt, Some(&tensor(&[4]))).map(|_| ())),
        ("residual", ok.clone().residual(&tensor(&[1, 3, 7, 1])).forward(&xt, &wt, None).map(|_| ())),
        ("output", ok.forward_into(&xt, &wt, None, &tensor(&[1, 3, 7, 8]))),
        ("output", ok.forward_into(&xt, &tensor(&[4, 4, 1, 1]), None, &xt)),
    ] {
        let error = result.expect_err(argument);
        assert!(matches!(error, Error::Invalid { argument: a, .. } if a == argument), "{argument}: {error}");
    }
    assert!(ConvTranspose3d::new().output_shape(&[1, 1, 1, 1, 1], &[1, 1, 1, 1, 1]).is_ok());
}
