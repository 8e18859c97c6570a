//! Involution: every kernel that is offered for a problem against the reference; and its layer.

use ndarray::{ArrayD, ArrayViewD};
use proptest::prelude::*;
use wgconv::reference::{
    ActivationKind, BatchNormParams, InvolutionLayerSpec, InvolutionSpec, apply, epilogue, involution_layer,
    involution2d, involution2d_out_shape,
};
use wgconv::{
    Activation, AdapterClass, BatchNorm, Cache, Error, Gpu, Involution2d, InvolutionKernel, InvolutionLayer,
    InvolutionLayerWeights, Padding, Profile, Tensor, ndarray, wgpu,
};

use crate::common::{
    abs, assert_bounded, assert_exact, assert_within, gpu, integers, largest, linear_bound, open, poisoned, reals,
    to_run, upload,
};

/// Kernel, stride, dilation, pads and groups.
type Case = ([usize; 2], [usize; 2], [usize; 2], [(usize, usize); 2], usize);

/// The same options for both sides.
fn both((kernel, stride, dilation, pads, groups): Case) -> (Involution2d, InvolutionSpec) {
    let options =
        Involution2d::new().kernel_size(kernel).stride(stride).dilation(dilation).padding(pads).groups(groups);
    (options, InvolutionSpec { kernel, stride, dilation, pads, groups })
}

/// Shapes of the weight, with six axes and with four.
fn weight_shapes(x: &[usize], spec: &InvolutionSpec) -> ([usize; 6], [usize; 4]) {
    let y = involution2d_out_shape(x, spec).expect("a case that the reference takes");
    let ([kh, kw], g) = (spec.kernel, spec.groups);
    ([x[0], g, kh, kw, y[2], y[3]], [x[0], g * kh * kw, y[2], y[3]])
}

/// One forward pass with a kernel asked for by name, into a poisoned output.
fn run(options: &Involution2d, kernel: InvolutionKernel, args: [&ArrayD<f32>; 3], shape: &[usize]) -> ArrayD<f32> {
    let [x, w, bias] = args.map(upload);
    let out = poisoned(shape);
    options.clone().kernel(kernel).forward_into(&x, &w, Some(&bias), &out).expect("forward");
    out.to_array().expect("read")
}

fn offered(options: &Involution2d, x: &ArrayD<f32>, w: &ArrayD<f32>) -> Vec<InvolutionKernel> {
    options.candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates")
}

const SAME3: [(usize, usize); 2] = [(1, 1); 2];
const SAME7: [(usize, usize); 2] = [(3, 3); 2];

#[test]
fn awkward() {
    use InvolutionKernel::{Direct, Rows, Subgroup};
    let (all, both_kernels): (&[_], &[_]) = (&[Subgroup, Rows, Direct], &[Rows, Direct]);
    // Input shape, case, kernels that must be offered where the adapter has subgroups of a fixed size.
    for (x, case, kernels) in [
        // Rows in aligned vec4s: every width, every block of channels and its tails, both strides; rows of more and of fewer quads than
        // a subgroup has lanes.
        ([2, 16, 6, 8], ([3, 3], [1, 1], [1, 1], SAME3, 1), all),
        ([1, 10, 5, 12], ([5, 5], [1, 1], [1, 1], [(2, 2); 2], 2), all),
        ([1, 8, 9, 12], ([7, 7], [1, 1], [1, 1], SAME7, 1), all),
        ([1, 33, 3, 72], ([3, 3], [1, 1], [1, 1], SAME3, 1), all),
        ([2, 6, 9, 16], ([7, 7], [2, 2], [1, 1], SAME7, 6), both_kernels),
        ([1, 3, 4, 8], ([3, 3], [2, 2], [1, 1], SAME3, 1), both_kernels),
        ([1, 14, 8, 8], ([5, 5], [2, 2], [1, 1], [(2, 1); 2], 7), both_kernels),
        ([1, 7, 2, 4], ([7, 7], [1, 1], [1, 1], SAME7, 1), all),
        // Rows in aligned pairs: tails of one pair, less than a quad, more quads than lanes; an input and an output of other whole numbers.
        ([1, 8, 9, 14], ([7, 7], [1, 1], [1, 1], SAME7, 1), all),
        ([2, 12, 3, 2], ([3, 3], [1, 1], [1, 1], SAME3, 1), all),
        ([1, 5, 4, 34], ([5, 5], [1, 1], [1, 1], [(2, 2); 2], 1), all),
        ([1, 4, 5, 6], ([3, 3], [1, 1], [1, 1], [(1, 0), (1, 3)], 1), all),
        ([1, 4, 5, 12], ([3, 3], [1, 1], [1, 1], [(1, 0), (1, 3)], 1), all),
        // Rows that are not aligned: tails of the row, pads that move the windows, one column.
        ([1, 16, 7, 7], ([7, 7], [1, 1], [1, 1], SAME7, 1), all),
        ([1, 32, 4, 45], ([3, 3], [1, 1], [1, 1], SAME3, 2), all),
        ([3, 5, 4, 14], ([3, 3], [1, 1], [1, 1], SAME3, 5), both_kernels),
        ([3, 15, 4, 14], ([3, 3], [1, 1], [1, 1], SAME3, 5), all),
        ([1, 4, 5, 9], ([3, 3], [1, 1], [1, 1], [(1, 0), (1, 9)], 1), all),
        ([1, 4, 5, 9], ([3, 3], [1, 1], [1, 1], [(1, 0), (1, 0)], 1), both_kernels),
        ([1, 4, 8, 13], ([5, 5], [2, 2], [1, 1], [(2, 2); 2], 2), both_kernels),
        ([1, 2, 5, 8], ([3, 3], [1, 1], [1, 1], [(0, 2), (2, 0)], 1), both_kernels),
        ([1, 4, 3, 5], ([3, 3], [1, 1], [1, 1], [(9, 8), (7, 9)], 1), both_kernels),
        ([2, 9, 9, 3], ([3, 3], [1, 1], [1, 1], [(0, 0); 2], 3), &[Direct, Rows]),
        ([1, 4, 5, 1], ([3, 3], [1, 1], [1, 1], SAME3, 1), &[Direct, Rows, Subgroup]),
        // Other heights, strides and dilations along columns.
        ([1, 4, 13, 8], ([4, 3], [3, 1], [2, 1], [(1, 2), (1, 1)], 1), all),
        ([1, 4, 13, 8], ([4, 3], [3, 1], [2, 1], [(1, 2), (1, 1)], 2), both_kernels),
        ([1, 4, 6, 11], ([1, 7], [1, 2], [1, 1], [(0, 0), (5, 1)], 1), both_kernels),
        // The direct kernel alone.
        ([2, 6, 4, 5], ([1, 1], [1, 1], [1, 1], [(0, 0); 2], 3), &[Direct]),
        ([1, 5, 6, 7], ([2, 2], [1, 1], [1, 1], [(0, 1); 2], 1), &[Direct]),
        ([1, 12, 7, 6], ([4, 6], [1, 2], [1, 1], [(2, 1), (3, 2)], 4), &[Direct]),
        ([1, 4, 12, 13], ([9, 9], [1, 1], [1, 1], [(4, 4); 2], 4), &[Direct]),
        ([1, 3, 13, 12], ([11, 11], [2, 3], [1, 1], [(5, 5); 2], 3), &[Direct]),
        ([1, 8, 11, 12], ([3, 3], [1, 1], [2, 3], [(2, 2), (3, 3)], 2), &[Direct]),
        ([2, 7, 9, 9], ([3, 3], [3, 3], [1, 1], SAME3, 7), &[Direct]),
    ] {
        let (options, spec) = both(case);
        let (six, four) = weight_shapes(&x, &spec);
        let (x, bias) = (integers(&x, 1, 4), integers(&x[1..2], 3, 9));
        let weight = integers(&six, 2, 3);
        let want = involution2d(x.view(), weight.view(), Some(bias.view()), &spec).expect("reference");
        let lanes = gpu().profile().subgroup.is_some();
        let kernels: Vec<_> = kernels.iter().copied().filter(|&kernel| lanes || kernel != Subgroup).collect();
        assert_eq!(offered(&options, &x, &weight), kernels, "{case:?}");
        assert_eq!(options.output_shape(x.shape(), &six).expect("shape"), want.shape());
        let kernels = to_run(kernels);
        for weight in [weight.clone().into_shape_with_order(&four[..]).expect("four axes"), weight] {
            for &kernel in &kernels {
                let got = run(&options, kernel, [&x, &weight, &bias], want.shape());
                assert_exact(&format!("{kernel:?} {case:?} x {:?} w {:?}", x.shape(), weight.shape()), &got, &want);
            }
        }
    }
}

#[test]
fn weight_of_six_axes_tells_the_kernel_size() {
    let x = integers(&[1, 4, 6, 8], 1, 4);
    let weight = integers(&[1, 2, 3, 5, 6, 8], 2, 3);
    let options = Involution2d::new().padding(Padding::Same).groups(2);
    let spec = InvolutionSpec { pads: [(1, 1), (2, 2)], groups: 2, ..InvolutionSpec::new([3, 5]) };
    let want = involution2d(x.view(), weight.view(), None, &spec).expect("reference");
    let y = options.forward(&upload(&x), &upload(&weight), None).expect("forward");
    assert_exact("six axes", &y.to_array().expect("read"), &want);
}

#[test]
fn bias_residual_activation() {
    // Aligned rows, others, and the direct kernel alone; channels with a tail.
    for (x, case) in [
        ([2, 6, 5, 8], ([3, 3], [1, 1], [1, 1], SAME3, 2)),
        ([1, 7, 5, 7], ([3, 3], [1, 1], [1, 1], SAME3, 1)),
        ([1, 5, 6, 5], ([2, 4], [1, 1], [1, 1], [(1, 0), (2, 1)], 1)),
    ] {
        let (options, spec) = both(case);
        let (six, _) = weight_shapes(&x, &spec);
        let (x, weight, bias) = (integers(&x, 1, 4), integers(&six, 2, 3), integers(&x[1..2], 3, 9));
        let plain = involution2d(x.view(), weight.view(), Some(bias.view()), &spec).expect("reference");
        let residual = integers(plain.shape(), 4, 9);
        let options = options.residual(&upload(&residual));
        for (activation, kind) in [
            (Activation::Identity, ActivationKind::Identity),
            (Activation::Relu, ActivationKind::Relu),
            (Activation::Relu6, ActivationKind::Relu6),
            (Activation::LeakyRelu(0.25), ActivationKind::LeakyRelu(0.25)),
        ] {
            let want = epilogue(plain.clone(), Some(residual.view()), kind).expect("reference");
            for kernel in offered(&options, &x, &weight) {
                let got = run(&options.clone().activation(activation), kernel, [&x, &weight, &bias], want.shape());
                assert_exact(&format!("{kernel:?} {activation:?} {case:?}"), &got, &want);
            }
        }
        // The sums are exact, so what a kernel has built in and what it decides at run time must agree to the bit.
        let options = options.activation(Activation::Silu);
        let want = epilogue(plain.clone(), Some(residual.view()), ActivationKind::Silu).expect("reference");
        let direct = run(&options, InvolutionKernel::Direct, [&x, &weight, &bias], want.shape());
        for kernel in offered(&options, &x, &weight) {
            let got = run(&options, kernel, [&x, &weight, &bias], want.shape());
            assert_eq!(got, direct, "{kernel:?} {case:?}");
            assert_within("silu", &got, &want, |_| 1e-4);
        }
    }
}

/// A device whose bindings are so small that a tensor of a few thousand elements needs windows.
fn narrow(bytes: u64) -> Gpu {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: bytes, ..open().device().limits() };
    Gpu::builder()
        .adapter_from_env()
        .cache(Cache::Off)
        .limits(limits)
        .build_blocking()
        .expect("a device with small bindings")
}

#[test]
fn windows() {
    // With 2 KiB and an alignment of 256 bytes or less, a window has at least 444 elements.
    let gpu = narrow(2048);
    let upload = |array: &ArrayD<f32>| Tensor::from_array(&gpu, array).expect("upload");
    // Input shape, case, how many kernels are offered, and what does not fit.
    for (x, case, kernels, what) in [
        ([9, 2, 5, 8], ([3, 3], [1, 1], [1, 1], SAME3, 1), 2, "all images"),
        ([9, 4, 5, 8], ([3, 3], [1, 1], [1, 1], SAME3, 1), 3, "all images, by subgroups too"),
        ([2, 12, 4, 8], ([3, 3], [1, 1], [1, 1], SAME3, 6), 2, "the groups of an image"),
        ([1, 40, 4, 12], ([3, 3], [1, 1], [1, 1], SAME3, 2), 2, "the channels of a group"),
        ([2, 6, 8, 12], ([3, 3], [1, 1], [1, 1], SAME3, 1), 2, "the rows of taps"),
        ([1, 3, 18, 11], ([5, 3], [2, 2], [1, 2], [(2, 2), (1, 1)], 1), 1, "the rows of taps, with gaps"),
        ([1, 6, 11, 19], ([5, 5], [1, 1], [1, 1], [(2, 2); 2], 1), 1, "a row of taps"),
        ([1, 3, 25, 22], ([3, 3], [1, 1], [1, 1], SAME3, 3), 1, "a plane"),
        ([1, 2, 27, 20], ([5, 2], [2, 1], [3, 2], [(4, 6), (1, 1)], 1), 1, "a plane, with gaps"),
        ([1, 2, 40, 21], ([3, 3], [4, 4], [1, 1], [(0, 0); 2], 1), 1, "a plane of the input"),
        ([1, 513, 1, 2], ([1, 3], [1, 1], [1, 1], [(0, 0), (1, 1)], 27), 3, "the bias"),
    ] {
        let (options, spec) = both(case);
        let (six, _) = weight_shapes(&x, &spec);
        let (x, weight, bias) = (integers(&x, 1, 4), integers(&six, 2, 3), integers(&x[1..2], 3, 9));
        let plain = involution2d(x.view(), weight.view(), Some(bias.view()), &spec).expect("reference");
        let residual = integers(plain.shape(), 4, 9);
        let want = epilogue(plain.clone(), Some(residual.view()), ActivationKind::Relu).expect("reference");
        let options = options.residual(&upload(&residual)).activation(Activation::Relu);
        let (xt, wt, bt) = (upload(&x), upload(&weight), upload(&bias));
        let offered = options.candidates(gpu.profile(), x.shape(), weight.shape()).expect("candidates");
        let subgroup = usize::from(kernels == 3 && gpu.profile().subgroup.is_none());
        assert_eq!(offered.len(), kernels - subgroup, "{what}");
        for kernel in offered {
            let options = options.clone().kernel(kernel);
            let plan = options.plan(gpu.profile(), x.shape(), weight.shape()).expect("plan");
            assert!(plan.dispatches() > 1, "{what}: {plan}");
            let out = upload(&ArrayD::from_elem(want.shape(), f32::NAN));
            options.forward_into(&xt, &wt, Some(&bt), &out).expect("forward");
            assert_exact(&format!("{kernel:?}, {what}"), &out.to_array().expect("read"), &want);
        }
    }
    // A row that does not fit a window is refused before anything is allocated.
    let error = Involution2d::new().output_shape(&[1, 1, 1, 600], &[1, 1, 1, 1, 1, 600]).map(|_| ());
    assert!(error.is_ok());
    let plan = Involution2d::new().plan(gpu.profile(), &[1, 1, 1, 600], &[1, 1, 1, 1, 1, 600]);
    assert!(matches!(plan, Err(Error::TooLarge { op: "involution2d", argument: "output", .. })), "{plan:?}");
}

/// One pixel of NaN, or a weight of infinity over the padding, reaches the windows that it is in and nothing else.
#[test]
fn what_is_not_finite_stays_in_its_window() {
    for (shape, case) in [
        ([1, 4, 9, 12], ([3, 3], [1, 1], [1, 1], SAME3, 2)),
        ([1, 4, 9, 12], ([3, 3], [1, 1], [1, 1], SAME3, 1)),
        ([1, 4, 9, 11], ([3, 3], [1, 1], [1, 1], SAME3, 1)),
        ([1, 4, 9, 11], ([5, 3], [1, 1], [1, 1], [(2, 2), (1, 1)], 2)),
        ([1, 2, 9, 8], ([7, 7], [2, 2], [1, 1], SAME7, 1)),
        ([1, 2, 8, 9], ([4, 4], [1, 1], [1, 1], [(2, 2); 2], 1)),
    ] {
        let (options, spec) = both(case);
        let (six, _) = weight_shapes(&shape, &spec);
        let (x, weight) = (integers(&shape, 1, 4), integers(&six, 2, 3));
        let clean = involution2d(x.view(), weight.view(), None, &spec).expect("reference");
        let out_shape = clean.shape().to_vec();
        let bias = ArrayD::zeros(&shape[1..2]);
        // The reference skips the padding, so its NaNs are those of the windows.
        let expect = |x: &ArrayD<f32>, weight: &ArrayD<f32>, what: &str| {
            let want = involution2d(x.view(), weight.view(), None, &spec).expect("reference");
            for kernel in offered(&options, x, weight) {
                let got = run(&options, kernel, [x, weight, &bias], &out_shape);
                for ((index, &got), &want) in got.indexed_iter().zip(&want) {
                    let same = if want.is_nan() { got.is_nan() } else { f64::from(got) == want };
                    assert!(same, "{kernel:?} {what} {case:?} at {index:?}: got {got}, want {want}");
                }
            }
            want
        };
        // The first and the last pixel too, which clamped indices load.
        for pixel in [[0, 1, 4, 5], [0, 0, 0, 0], [0, 1, shape[2] - 1, shape[3] - 1]] {
            for value in [f32::NAN, f32::INFINITY] {
                let mut spoiled = x.clone();
                spoiled[&pixel[..]] = value;
                let want = expect(&spoiled, &weight, "pixel");
                assert!(want.iter().zip(&clean).any(|(a, b)| a == b) && want.iter().any(|v| !v.is_finite()));
            }
        }
        // Every weight over the padding, beside the rows as well as above and below them.
        let outside = |axis: usize, q: usize, tap: usize| {
            let at = (q * spec.stride[axis] + tap * spec.dilation[axis]).checked_sub(spec.pads[axis].0);
            at.is_none_or(|at| at >= shape[2 + axis])
        };
        let mut spoiled = weight.clone();
        for (index, value) in spoiled.indexed_iter_mut() {
            if outside(0, index[4], index[2]) || outside(1, index[5], index[3]) {
                *value = f32::INFINITY;
            }
        }
        assert!(spoiled != weight);
        assert_eq!(expect(&x, &spoiled, "padding"), clean);
        // A weight over the input: one position of one group.
        let mut spoiled = weight.clone();
        spoiled[[0, spec.groups - 1, 2, 2, 2, 2].as_slice()] = f32::NAN;
        let want = expect(&x, &spoiled, "weight");
        let spoiled = want.iter().filter(|v| v.is_nan()).count();
        assert_eq!(spoiled, shape[1] / spec.groups);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// `|gpu - ref| <= c*u*n*S`, n the taps, the bias and the residual: each product and each addition rounds once, in whatever order,
    /// so `c = 1` but for terms of second order.
    #[test]
    fn random_within_the_derived_bound(
        kernel in prop::array::uniform2(1usize..8),
        stride in prop::array::uniform2(1usize..4),
        dilation in prop::array::uniform2(1usize..3),
        pads in prop::array::uniform2((0usize..5, 0usize..5)),
        (batch, groups, cg) in (1usize..3, 1usize..4, 1usize..10),
        extra in prop::array::uniform2(0usize..14),
        seed in any::<u64>(),
    ) {
        let extent = |a: usize| (dilation[a] * (kernel[a] - 1) + 1).saturating_sub(pads[a].0 + pads[a].1).max(1) + extra[a];
        let shape = [batch, groups * cg, extent(0), extent(1)];
        let (options, spec) = both((kernel, stride, dilation, pads, groups));
        let (six, _) = weight_shapes(&shape, &spec);
        let (x, weight, bias) = (reals(&shape, seed), reals(&six, seed ^ 1), reals(&shape[1..2], seed ^ 2));
        let plain = involution2d(x.view(), weight.view(), Some(bias.view()), &spec).expect("reference");
        let residual = reals(plain.shape(), seed ^ 3);
        let want = epilogue(plain.clone(), Some(residual.view()), ActivationKind::Relu).expect("reference");
        let [ax, aw, ab] = [&x, &weight, &bias].map(abs);
        let absolute = involution2d(ax.view(), aw.view(), Some(ab.view()), &spec).expect("reference")
            + residual.mapv(|v| f64::from(v.abs()));
        let most = largest(x.view()) + largest(weight.view());
        let bound = linear_bound(kernel[0] * kernel[1] + 2, &absolute, most, 1.001);
        let options = options.residual(&upload(&residual)).activation(Activation::Relu);
        for kernel in offered(&options, &x, &weight) {
            let got = run(&options, kernel, [&x, &weight, &bias], want.shape());
            assert_bounded(&format!("{kernel:?} {spec:?} x {shape:?}"), &got, &want, &bound);
            prop_assert_eq!(got, run(&options, kernel, [&x, &weight, &bias], want.shape()), "the same bits again");
        }
    }
}

#[test]
fn encode_gives_the_same() {
    let (options, _) = both(([3, 3], [1, 1], [1, 1], SAME3, 2));
    let (x, weight) = (upload(&reals(&[1, 8, 6, 8], 1)), upload(&reals(&[1, 18, 6, 8], 2)));
    let want = options.forward(&x, &weight, None).expect("forward").to_array().expect("read");
    let mut encoder = gpu().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let encoded = options.encode(&mut encoder, &x, &weight, None).expect("encode");
    gpu().queue().submit([encoder.finish()]);
    assert_eq!(encoded.submitted().to_array().expect("read"), want);
}

/// Weights of a layer, on the host: channels, reduced channels, kernels spanned.
struct Host {
    reduce: ArrayD<f32>,
    norm: [ArrayD<f32>; 4],
    span: ArrayD<f32>,
    span_bias: ArrayD<f32>,
}

const EPS: f64 = 1e-5;

impl Host {
    fn new(channels: usize, reduced: usize, spanned: usize, seed: u64) -> Self {
        let vector = |i| reals(&[reduced], seed + i);
        Self {
            reduce: reals(&[reduced, channels, 1, 1], seed),
            norm: [vector(1), vector(2), vector(3), vector(4).mapv(|v| v * v + 0.1)],
            span: reals(&[spanned, reduced, 1, 1], seed + 5),
            span_bias: reals(&[spanned], seed + 6),
        }
    }

    fn layer(&self, options: Involution2d) -> Result<InvolutionLayer, Error> {
        self.layer_on(&gpu(), options)
    }

    fn layer_on(&self, gpu: &Gpu, options: Involution2d) -> Result<InvolutionLayer, Error> {
        let [gamma, beta, mean, var] = self.norm.each_ref().map(|vector| vector.view());
        let norm = BatchNorm { gamma, beta, mean, var, eps: EPS };
        let span_bias = Some(self.span_bias.view());
        let weights = InvolutionLayerWeights { reduce: self.reduce.view(), norm, span: self.span.view(), span_bias };
        InvolutionLayer::new(gpu, options, &weights)
    }

    fn reference(&self, x: ArrayViewD<f32>, spec: &InvolutionLayerSpec) -> ArrayD<f64> {
        let [gamma, beta, mean, var] = self.norm.each_ref().map(|vector| vector.view());
        let norm = BatchNormParams { gamma, beta, mean, var };
        let span_bias = Some(self.span_bias.view());
        involution_layer(x, self.reduce.view(), norm, self.span.view(), span_bias, spec).expect("reference")
    }

    /// The layer on absolute values, its shift `|beta| + |mean|*|gamma|/sigma`: what every sum of absolute values stays below.
    fn absolute(&self) -> Self {
        let [gamma, beta, mean, var] = &self.norm;
        let mut shift = abs(beta);
        for (c, shift) in shift.iter_mut().enumerate() {
            *shift += mean[c].abs() * gamma[c].abs() / (f64::from(var[c]) + EPS).sqrt() as f32;
        }
        Self {
            reduce: abs(&self.reduce),
            norm: [abs(gamma), shift * 1.00001, mean * 0.0, var.clone()],
            span: abs(&self.span),
            span_bias: abs(&self.span_bias),
        }
    }
}

/// Rounding errors add up along the layer. With `A` the layer on absolute values and `u` half an ulp of 1: pooling m pixels gives `m+4`
/// roundings (m - 1 additions, and 2.5 ulp for the division), the folded weight and bias one, `reduce` C+1 (and its ReLU none, it moves no
/// two values apart), `span` Cr+1 and the involution K*K; each multiplies `A` by `1 + u` at most. So the error is at most `n*u*A` with n
/// their sum, but for second order.
#[test]
fn layer() {
    for (x, options, groups, kernel, stride, dilation, reduced) in [
        ([1, 16, 9, 12], Involution2d::new().padding(3), 2, 7, 1, 1, 4),
        ([2, 12, 11, 9], Involution2d::new().padding(3).stride(2), 3, 7, 2, 1, 3),
        ([1, 8, 8, 10], Involution2d::new().padding(2).stride(3), 1, 5, 3, 1, 2),
        ([1, 6, 7, 8], Involution2d::new().padding(2).dilation(2), 6, 3, 1, 2, 5),
        ([1, 21, 6, 7], Involution2d::new().padding(2), 1, 5, 1, 1, 6),
    ] {
        let options = options.kernel_size(kernel).groups(groups);
        let pads = [(dilation * (kernel - 1) / 2, dilation * (kernel - 1) / 2); 2];
        let inv = InvolutionSpec { kernel: [kernel; 2], stride: [stride; 2], dilation: [dilation; 2], pads, groups };
        let spec = InvolutionLayerSpec { inv, eps: EPS };
        let host = Host::new(x[1], reduced, groups * kernel * kernel, 7);
        let x = reals(&x, 1);
        let layer = host.layer(options).expect("layer");
        let want = host.reference(x.view(), &spec);
        assert_eq!(layer.output_shape(x.shape()).expect("shape"), want.shape());
        let absolute = host.absolute().reference(abs(&x).view(), &spec);
        let n = (stride * stride + 4) + 1 + (x.shape()[1] + 1) + (reduced + 1) + kernel * kernel;
        let bound = linear_bound(n, &absolute, 16.0, 1.01);
        let xt = upload(&x);
        let unfused = layer.fused(false);
        let mut layers = vec![unfused.clone().kernel(InvolutionKernel::Direct), unfused];
        // Strides of three are not within the fused kernel's reach.
        let fused = layers[1].clone().fused(true);
        match stride <= 2 && dilation == 1 {
            true => layers.push(fused),
            false => invalid(fused.forward(&xt), "fused"),
        }
        for layer in layers {
            let what = format!("{spec:?} fused {:?}", layer.is_fused(x.shape()));
            let got = layer.forward(&xt).expect("forward").to_array().expect("read");
            assert_bounded(&what, &got, &want, &bound);
            // The epilogue is the involution's.
            let residual = reals(want.shape(), 3);
            let out = poisoned(want.shape());
            let with = layer.residual(&upload(&residual)).activation(Activation::Relu);
            with.forward_into(&xt, &out).expect("forward");
            let want = (&want + &residual.mapv(f64::from)).mapv(|v| apply(ActivationKind::Relu, v));
            let bound = &bound
                + &residual.mapv(|v| f64::from(f32::EPSILON) * f64::from(v.abs()))
                + &absolute * f64::from(f32::EPSILON);
            assert_bounded(&format!("epilogue {what}"), &out.to_array().expect("read"), &want, &bound);
        }
    }
}

/// Fused or not, images of a layer in parts where a binding is too small for all.
#[test]
fn fused_layer_in_windows() {
    let gpu = narrow(4096);
    let host = Host::new(4, 3, 2 * 9, 5);
    let options = Involution2d::new().padding(1).kernel_size(3).groups(2);
    let x = reals(&[7, 4, 6, 8], 1);
    let layer = |gpu: &Gpu| host.layer_on(gpu, options.clone()).expect("layer");
    let (whole, parts) = (layer(&crate::common::gpu()), layer(&gpu).fused(true));
    assert!(parts.is_fused(x.shape()).expect("fused"));
    let want = whole.fused(true).forward(&upload(&x)).expect("forward").to_array().expect("read");
    let got = parts.forward(&Tensor::from_array(&gpu, &x).expect("upload")).expect("forward");
    assert_eq!(got.to_array().expect("read"), want);
}

/// Channels that are no multiple of a thread's, on guarded memory: nothing is read or stored beside the tensors.
#[test]
fn fused_layer_stays_within_its_tensors() {
    let gpu = Gpu::builder().adapter_from_env().cache(Cache::Off).guarded(true).build_blocking().expect("device");
    let host = Host::new(7, 3, 9, 5);
    let layer = host.layer_on(&gpu, Involution2d::new().padding(1).kernel_size(3)).expect("layer");
    let x = Tensor::from_array(&gpu, &reals(&[1, 7, 5, 8], 1)).expect("upload");
    let [want, got] = [false, true].map(|fused| layer.clone().fused(fused).forward(&x).expect("forward"));
    let (want, got) = (want.to_array().expect("read"), got.to_array().expect("read"));
    assert_within("fused", &got, &want.mapv(f64::from), |_| 1e-4);
    gpu.check_guards().expect("guards");
}

/// A tap whose kernel is infinite everywhere reaches no output whose tap lies in the padding, fused or not.
#[test]
fn an_infinite_tap_of_a_layer_stays_in_its_window() {
    let mut host = Host::new(4, 2, 9, 5);
    host.span_bias[0] = f32::INFINITY;
    let layer = host.layer(Involution2d::new().padding(1).kernel_size(3)).expect("layer");
    let x = upload(&reals(&[1, 4, 5, 8], 1));
    for fused in [false, true] {
        let y = layer.clone().fused(fused).forward(&x).expect("forward").to_array().expect("read");
        for (index, value) in y.indexed_iter() {
            assert_eq!(value.is_finite(), index[2] == 0 || index[3] == 0, "fused {fused} at {index:?}: {value}");
        }
    }
}

/// By rule a GPU fuses and a CPU adapter does not.
#[test]
fn fused_by_rule() {
    let host = Host::new(8, 4, 2 * 9, 1);
    let layer = host.layer(Involution2d::new().kernel_size(3).padding(1).groups(2)).expect("layer");
    let software = gpu().profile().class == AdapterClass::Cpu;
    assert_eq!(layer.is_fused(&[1, 8, 5, 6]).expect("fused"), !software);
    assert!(!layer.clone().kernel(InvolutionKernel::Direct).is_fused(&[1, 8, 5, 6]).expect("fused"));
    assert!(layer.fused(true).is_fused(&[1, 8, 5, 6]).expect("fused"));
}

#[track_caller]
fn invalid<T: std::fmt::Debug>(result: Result<T, Error>, argument: &str) {
    match result {
        Err(Error::Invalid { argument: got, .. }) if got == argument => {}
        other => panic!("expected an error about {argument}, got {other:?}"),
    }
}

#[test]
fn mistakes_are_typed_errors() {
    let new = Involution2d::new;
    let k3 = || new().kernel_size(3).padding(1);
    let (x, w) = ([1, 4, 5, 6], [1, 9, 5, 6]);
    assert_eq!(k3().output_shape(&x, &w).expect("good"), x);
    assert_eq!(new().padding(1).output_shape(&x, &[1, 1, 3, 3, 5, 6]).expect("good"), x);
    for input in [&[4, 5, 6][..], &[1, 4, 5, 6, 1], &[], &[0, 4, 5, 6], &[1, 4, 0, 6]] {
        invalid(k3().output_shape(input, &w), "input");
    }
    for weight in
        [&[1, 9, 5, 7][..], &[2, 9, 5, 6], &[1, 1, 3, 3, 5, 5], &[1, 2, 3, 3, 5, 6], &[1, 8, 5, 6], &[9, 5, 6], &[]]
    {
        invalid(k3().output_shape(&x, weight), "weight");
    }
    invalid(new().padding(1).output_shape(&x, &w), "kernel_size");
    invalid(new().padding(1).output_shape(&x, &[1, 5, 6]), "weight");
    invalid(k3().groups(3).output_shape(&x, &w), "groups");
    invalid(k3().groups(0).output_shape(&x, &w), "groups");
    invalid(k3().stride(0).output_shape(&x, &w), "stride");
    invalid(k3().dilation(0).output_shape(&x, &w), "dilation");
    invalid(new().kernel_size([0, 3]).output_shape(&x, &w), "kernel_size");
    invalid(new().kernel_size(7).output_shape(&x, &w), "kernel");
    for huge in [1 << 31, 1 << 40, 1 << 62, usize::MAX] {
        invalid(new().kernel_size(huge).output_shape(&x, &w), "kernel");
        invalid(new().kernel_size(huge).padding(Padding::Full).dilation(5).output_shape(&x, &w), "padding");
        // One step too large to count is told from one that is too large for the input.
        let argument = if huge == usize::MAX { "padding" } else { "kernel" };
        invalid(k3().dilation(huge).output_shape(&x, &w), argument);
        invalid(k3().padding(huge).output_shape(&x, &w), "padding");
        invalid(k3().groups(huge).output_shape(&x, &w), "groups");
        invalid(new().padding(1).output_shape(&x, &[1, 1, huge, huge, 5, 6]), "kernel");
        // A stride that is never taken and a dilation over one tap mean nothing.
        assert_eq!(
            new().kernel_size(1).dilation(huge).stride(huge).output_shape(&x, &[1, 1, 1, 1]).expect("good"),
            [1, 4, 1, 1]
        );
        let wide = [1, 4, huge, huge];
        assert!(k3().output_shape(&wide, &w).is_err());
        assert!(new().kernel_size(1).output_shape(&[huge, huge, 1, 1], &[huge, 1, 1, 1]).is_err());
    }
    let asked = k3().kernel(InvolutionKernel::Rows).dilation([1, 2]).padding([1, 2]);
    invalid(asked.plan(&Profile::baseline(), &x, &w), "kernel");

    let [xt, wt] = [&x, &w].map(|shape| upload(&integers(shape, 1, 4)));
    let other = upload(&integers(&[5], 1, 4));
    invalid(k3().forward(&xt, &wt, Some(&other)), "bias");
    invalid(k3().residual(&other).forward(&xt, &wt, None), "residual");
    invalid(k3().forward_into(&xt, &wt, None, &other), "output");
    invalid(k3().forward_into(&xt, &wt, None, &xt), "output");
    let foreign = Tensor::zeros(&open(), &w).expect("upload");
    invalid(k3().forward(&xt, &foreign, None), "weight");
}

#[test]
fn mistakes_of_the_layer_are_typed_errors() {
    let host = Host::new(8, 4, 2 * 9, 1);
    let options = || Involution2d::new().kernel_size(3).padding(1).groups(2);
    let layer = host.layer(options()).expect("layer");
    assert_eq!(layer.output_shape(&[1, 8, 5, 6]).expect("good"), [1, 8, 5, 6]);
    invalid(layer.output_shape(&[1, 10, 5, 6]), "input");
    invalid(layer.output_shape(&[1, 8, 5]), "input");
    invalid(layer.forward(&upload(&integers(&[1, 10, 5, 6], 1, 4))), "input");
    invalid(host.layer(options().padding(0)).expect("layer").output_shape(&[1, 8, 5, 6]), "padding");
    invalid(host.layer(Involution2d::new().groups(2)), "kernel_size");
    invalid(host.layer(options().groups(0)), "kernel_size");
    invalid(host.layer(options().kernel_size(1 << 40)), "kernel_size");
    invalid(host.layer(options().groups(1)), "span");
    invalid(Host { span_bias: integers(&[17], 1, 4), ..Host::new(8, 4, 18, 1) }.layer(options()), "span_bias");
    invalid(Host { reduce: integers(&[4, 8, 3, 1], 1, 4), ..Host::new(8, 4, 18, 1) }.layer(options()), "reduce");
    let mut short = Host::new(8, 4, 18, 1);
    short.norm[1] = integers(&[3], 1, 4);
    invalid(short.layer(options()), "beta");
}
