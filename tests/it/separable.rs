//! Separable convolution, fused and not, against the reference of one convolution after the other.

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;
use wgconv::reference::{ActivationKind, ConvSpec, apply, conv, epilogue};
use wgconv::{
    Activation, AdapterClass, Error, Gpu, Profile, SeparableConv2d, SeparableKernel, SeparableWeights, Tensor, ndarray,
    wgpu,
};

use crate::common::{abs, assert_bounded, assert_exact, gpu, integers, poisoned, reals, tight, upload};

/// Stride, dilation, pads of the depthwise part.
type Options = ([usize; 2], [usize; 2], [(usize, usize); 2]);

const PADDED: Options = ([1, 1], [1, 1], [(1, 1), (1, 1)]);

/// The arrays of a problem.
struct Case {
    options: SeparableConv2d,
    spec: ConvSpec,
    x: ArrayD<f32>,
    depthwise: ArrayD<f32>,
    depthwise_bias: Option<ArrayD<f32>>,
    pointwise: ArrayD<f32>,
    pointwise_bias: Option<ArrayD<f32>>,
}

impl Case {
    fn new(
        (stride, dilation, pads): Options,
        x: [usize; 4],
        kernel: [usize; 2],
        outputs: usize,
        values: impl Fn(&[usize], u64) -> ArrayD<f32>,
    ) -> Self {
        let c = x[1];
        let spec = ConvSpec {
            stride: stride.into(),
            dilation: dilation.into(),
            pads: pads.into(),
            groups: c,
            ..ConvSpec::new(2)
        };
        Self {
            options: SeparableConv2d::new().stride(stride).dilation(dilation).padding(pads),
            spec,
            x: values(&x, 1),
            depthwise: values(&[c, 1, kernel[0], kernel[1]], 2),
            depthwise_bias: Some(values(&[c], 3)),
            pointwise: values(&[outputs, c, 1, 1], 4),
            pointwise_bias: Some(values(&[outputs], 5)),
        }
    }

    /// On small integers, which f32 sums exactly.
    fn exact(options: Options, x: [usize; 4], kernel: [usize; 2], outputs: usize) -> Self {
        Self::new(options, x, kernel, outputs, |shape, seed| integers(shape, seed, 3))
    }

    /// The first part before its activation.
    fn first(&self) -> ArrayD<f64> {
        let bias = self.depthwise_bias.as_ref().map(|bias| bias.view());
        conv(self.x.view(), self.depthwise.view(), bias, &self.spec).expect("reference")
    }

    /// The second part before residual and activation.
    fn second(&self, between: &ArrayD<f64>) -> ArrayD<f64> {
        let wide = |array: &ArrayD<f32>| array.mapv(f64::from);
        let bias = self.pointwise_bias.as_ref().map(wide);
        let bias = bias.as_ref().map(|bias| bias.view());
        conv(between.view(), wide(&self.pointwise).view(), bias, &ConvSpec::new(2)).expect("reference")
    }

    fn want(&self, between: ActivationKind) -> ArrayD<f64> {
        self.second(&self.first().mapv(|v| apply(between, v)))
    }

    /// A bound of every kernel before residual and activation, to first order and a little more: the depthwise sum has a rounding for
    /// each tap and the bias; the activation's slope of at most L carries that on and adds `ulp` ulp of its value; each product of the
    /// second sum meets one rounding for each channel, one for the bias and one for the residual.
    fn bound(&self, between: ActivationKind, slope: f64, ulp: f64) -> ArrayD<f64> {
        let u = f64::from(f32::EPSILON) / 2.0;
        let absolute = Case {
            options: self.options.clone(),
            spec: self.spec.clone(),
            x: abs(&self.x),
            depthwise: abs(&self.depthwise),
            depthwise_bias: self.depthwise_bias.as_ref().map(abs),
            pointwise: abs(&self.pointwise),
            pointwise_bias: self.pointwise_bias.as_ref().map(abs),
        };
        let taps = self.depthwise.len() / self.x.shape()[1];
        let made = self.first().mapv(|v| apply(between, v).abs());
        let off = absolute.first() * ((taps + 1) as f64 * u * slope) + &made * (2.0 * u * ulp);
        let rounded = absolute.second(&(made + &off)) * ((self.x.shape()[1] + 2) as f64 * u);
        let carried = Case { pointwise_bias: None, ..absolute }.second(&off);
        (carried + rounded) * 1.001 + 1e-30
    }

    fn shapes(&self) -> [&[usize]; 3] {
        [self.x.shape(), self.depthwise.shape(), self.pointwise.shape()]
    }

    /// What each way gives, written over NaNs, with these options in place of its own.
    #[track_caller]
    fn results(&self, gpu: &Gpu, options: &SeparableConv2d) -> Vec<(SeparableKernel, ArrayD<f32>)> {
        let on = |array: &ArrayD<f32>| Tensor::from_array(gpu, array).expect("upload");
        let (x, depthwise, pointwise) = (on(&self.x), on(&self.depthwise), on(&self.pointwise));
        let biases = [&self.depthwise_bias, &self.pointwise_bias].map(|bias| bias.as_ref().map(on));
        let weights = SeparableWeights {
            depthwise: &depthwise,
            depthwise_bias: biases[0].as_ref(),
            pointwise: &pointwise,
            pointwise_bias: biases[1].as_ref(),
        };
        let [xs, ds, ps] = self.shapes();
        let shape = options.output_shape(xs, ds, ps).expect("shape");
        let run = |kernel| {
            let out = on(&ArrayD::from_elem(IxDyn(&shape), f32::NAN));
            options.clone().kernel(kernel).forward_into(&x, &weights, &out).expect("forward");
            (kernel, out.to_array().expect("read"))
        };
        options.candidates(gpu.profile(), xs, ds, ps).expect("candidates").into_iter().map(run).collect()
    }

    fn name(&self, kernel: SeparableKernel) -> String {
        format!("{kernel:?} of {:?} {:?}", self.shapes(), self.spec)
    }

    #[track_caller]
    fn check_exact(&self, gpu: &Gpu) {
        let want = self.want(ActivationKind::Identity);
        let results = self.results(gpu, &self.options);
        assert_eq!(results.len(), if want.shape()[1] < 4 { 1 } else { 2 }, "both ways");
        for (kernel, got) in results {
            assert_exact(&self.name(kernel), &got, &want);
        }
    }
}

/// Rows: options, input shape, kernel, output channels.
#[test]
fn awkward() {
    for (options, x, kernel, outputs) in [
        (PADDED, [1, 8, 12, 12], [3, 3], 16),
        (PADDED, [2, 17, 9, 7], [3, 3], 19),
        (([2, 2], [1, 1], [(1, 1); 2]), [2, 6, 11, 8], [3, 3], 33),
        (([2, 3], [1, 2], [(0, 2), (3, 1)]), [1, 5, 11, 14], [3, 2], 7),
        (([1, 1], [1, 1], [(0, 0); 2]), [3, 8, 4, 4], [1, 1], 64),
        (([1, 1], [3, 2], [(6, 6), (4, 4)]), [1, 4, 13, 9], [5, 5], 40),
        (([2, 1], [1, 1], [(2, 1), (0, 3)]), [1, 9, 9, 9], [5, 4], 4),
        (([1, 1], [1, 1], [(3, 3); 2]), [1, 10, 9, 12], [7, 7], 12),
        // Windows that lie in the padding whole, before and behind the image.
        (([1, 1], [1, 1], [(4, 4), (5, 5)]), [1, 3, 3, 2], [2, 2], 5),
        (([3, 2], [2, 3], [(9, 7), (0, 11)]), [2, 4, 3, 5], [3, 2], 6),
        (([5, 5], [1, 1], [(0, 0); 2]), [1, 3, 5, 5], [5, 5], 33),
        // Slices of channels that are full, and one of them more.
        (([1, 1], [1, 1], [(0, 0); 2]), [1, 64, 1, 1], [1, 1], 10),
        (([1, 2], [1, 1], [(0, 0), (1, 1)]), [1, 49, 3, 5], [1, 3], 65),
        (([1, 1], [1, 1], [(0, 0), (2, 0)]), [5, 1, 1, 31], [1, 3], 3),
    ] {
        Case::exact(options, x, kernel, outputs).check_exact(&gpu());
    }
    let mut case = Case::exact(PADDED, [2, 6, 7, 8], [3, 3], 9);
    let pointwise = case.pointwise_bias.take();
    case.check_exact(&gpu());
    case.depthwise_bias = None;
    case.check_exact(&gpu());
    case.pointwise_bias = pointwise;
    case.check_exact(&gpu());
}

/// Bias, then residual, then activation, in both parts; into the caller's encoder too.
#[test]
fn both_epilogues() {
    for width in [8, 7] {
        let case = Case::exact(PADDED, [2, 6, 6, width], [3, 3], 9);
        for (between, between_kind, last, kind) in [
            (Activation::Relu, ActivationKind::Relu, Activation::Identity, ActivationKind::Identity),
            (Activation::Relu6, ActivationKind::Relu6, Activation::Relu, ActivationKind::Relu),
            (
                Activation::LeakyRelu(0.5),
                ActivationKind::LeakyRelu(0.5),
                Activation::LeakyRelu(0.25),
                ActivationKind::LeakyRelu(0.25),
            ),
            (Activation::Identity, ActivationKind::Identity, Activation::Relu6, ActivationKind::Relu6),
        ] {
            let sums = case.want(between_kind);
            let residual = integers(sums.shape(), 9, 30);
            let options = case.options.clone().depthwise_activation(between).activation(last);
            for (residual, options) in
                [(None, options.clone()), (Some(&residual), options.residual(&upload(&residual)))]
            {
                let want = epilogue(sums.clone(), residual.map(|r| r.view()), kind).expect("reference");
                for (kernel, got) in case.results(&gpu(), &options) {
                    assert_exact(&format!("{between:?} {last:?} {}", case.name(kernel)), &got, &want);
                }
            }
        }
    }
}

/// Activations that are told apart otherwise, with their own error.
#[test]
fn other_activations_keep_the_bound() {
    for (width, between, between_kind, slope, ulp) in [
        (8, Activation::HardSwish, ActivationKind::HardSwish, 1.5, 5.0),
        (7, Activation::Tanh, ActivationKind::Tanh, 1.0, 9.0),
    ] {
        let case = Case::new(PADDED, [1, 10, 6, width], [3, 3], 12, reals);
        let sums = case.want(between_kind);
        let want = sums.mapv(|v| apply(ActivationKind::HardSwish, v));
        let bound = case.bound(between_kind, slope, ulp) * 1.5 + want.mapv(f64::abs) * (5.0 * f64::from(f32::EPSILON));
        let options = case.options.clone().depthwise_activation(between).activation(Activation::HardSwish);
        for (kernel, got) in case.results(&gpu(), &options) {
            assert_bounded(&format!("{between:?} {}", case.name(kernel)), &got, &want, &bound);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_problems_are_within_the_bound(
        (batch, channels, outputs) in (1usize..4, 1usize..40, 1usize..40),
        (h, w, kh, kw) in (1usize..14, 1usize..14, 1usize..6, 1usize..6),
        (stride, dilation, pads) in ([1usize..4, 1..4], [1usize..3, 1..3], [(4usize..9, 4usize..9), (4..9, 4..9)]),
        (cut, seed) in (any::<bool>(), any::<u64>()),
    ) {
        let case = Case::new((stride, dilation, pads), [batch, channels, h, w], [kh, kw], outputs, |shape, s| reals(shape, seed ^ s));
        let (kind, activation) = if cut { (ActivationKind::Relu6, Activation::Relu6) } else { (ActivationKind::Identity, Activation::Identity) };
        let (want, bound) = (case.want(kind), case.bound(kind, 1.0, 0.0));
        for (kernel, got) in case.results(&gpu(), &case.options.clone().depthwise_activation(activation)) {
            assert_bounded(&case.name(kernel), &got, &want, &bound);
        }
    }
}

/// Where the reference is NaN or infinite, so is the result, and nowhere else: a NaN or infinite pixel, a depthwise weight in a corner of
/// its kernel, which lies in the padding for other outputs, a pointwise weight, a bias. Six and seven channels leave idle ones.
#[test]
fn what_is_not_finite_stays_in_its_window() {
    for (options, x, kernel) in
        [(PADDED, [1, 6, 9, 12], [3, 3]), (([2, 1], [1, 2], [(2, 1), (2, 3)]), [1, 7, 10, 9], [3, 3])]
    {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for kind in 0..6 {
                let mut case = Case::exact(options, x, kernel, 9);
                // No 0 times infinity among the weights, which would hide where it goes.
                for weight in [&mut case.depthwise, &mut case.pointwise] {
                    weight.mapv_inplace(|v| if v == 0.0 { 1.0 } else { v });
                }
                match kind {
                    0 => case.x[[0, 2, 4, 3]] = value,
                    1 => case.depthwise[[3, 0, 0, 0]] = value,
                    2 => case.depthwise[[5, 0, 2, 2]] = value,
                    3 => case.depthwise[[1, 0, 0, 2]] = value,
                    4 => case.pointwise[[7, 5, 0, 0]] = value,
                    _ => case.depthwise_bias.as_mut().expect("bias")[[4]] = value,
                }
                let want = case.want(ActivationKind::Relu);
                assert!(kind == 5 || want.iter().any(|v| v.is_finite()) && want.iter().any(|v| !v.is_finite()));
                let options = case.options.clone().depthwise_activation(Activation::Relu);
                for (way, got) in case.results(&gpu(), &options) {
                    for ((index, &g), &w) in got.indexed_iter().zip(&want) {
                        let same = f64::from(g) == w || (g.is_nan() && w.is_nan());
                        assert!(same, "{value} kind {kind}: {}: at {index:?} got {g}, want {w}", case.name(way));
                    }
                }
            }
        }
    }
}

/// Images in parts where a binding is too small for all, aligned and not; what no part can hold is left to the other way, or refused.
#[test]
fn windows() {
    let gpu = tight();
    for (x, outputs) in [([9, 5, 6, 8], 6), ([7, 6, 7, 9], 9), ([5, 11, 9, 9], 5)] {
        let case = Case::exact(PADDED, x, [3, 3], outputs);
        let [xs, ds, ps] = case.shapes();
        let fused = case.options.clone().kernel(SeparableKernel::Fused).plan(gpu.profile(), xs, ds, ps).expect("plan");
        assert!(fused.len() == 1 && fused[0].dispatches() > 1, "{fused:?}");
        let want = case.want(ActivationKind::Identity);
        let residual = integers(want.shape(), 6, 9);
        let want = epilogue(want, Some(residual.view()), ActivationKind::Relu).expect("reference");
        let residual = Tensor::from_array(&gpu, &residual).expect("upload");
        let options = case.options.clone().residual(&residual).activation(Activation::Relu);
        for (kernel, got) in case.results(&gpu, &options) {
            assert_exact(&case.name(kernel), &got, &want);
        }
    }
    let large = Case::exact(PADDED, [1, 5, 15, 16], [3, 3], 6);
    let [xs, ds, ps] = large.shapes();
    let offered = large.options.candidates(gpu.profile(), xs, ds, ps).expect("candidates");
    assert_eq!(offered, [SeparableKernel::Unfused], "an image over the binding");
    invalid(large.options.clone().kernel(SeparableKernel::Fused).plan(gpu.profile(), xs, ds, ps), "kernel");
    for (kernel, got) in large.results(&gpu, &large.options) {
        assert_exact(&large.name(kernel), &got, &large.want(ActivationKind::Identity));
    }
}

/// Every way of a call gives the same: recorded, into an output, into an encoder; kernels compiled ahead.
#[test]
fn ways_to_call() {
    let gpu = crate::common::open();
    let case = Case::exact(PADDED, [2, 6, 7, 8], [3, 3], 9);
    let want = case.want(ActivationKind::Identity);
    let on = |array: &ArrayD<f32>| Tensor::from_array(&gpu, array).expect("upload");
    let (x, depthwise, pointwise) = (on(&case.x), on(&case.depthwise), on(&case.pointwise));
    let bias = case.pointwise_bias.as_ref().map(on);
    let depthwise_bias = case.depthwise_bias.as_ref().map(on);
    let weights = SeparableWeights {
        depthwise: &depthwise,
        depthwise_bias: depthwise_bias.as_ref(),
        pointwise: &pointwise,
        pointwise_bias: bias.as_ref(),
    };
    let [xs, ds, ps] = case.shapes();
    for kernel in [SeparableKernel::Fused, SeparableKernel::Unfused, SeparableKernel::Auto] {
        let options = case.options.clone().kernel(kernel);
        options.warm_up(&gpu, xs, ds, ps, [true, true]).expect("warm up");
        let before = gpu.counters().pipelines;
        let got = options.forward(&x, &weights).expect("forward").to_array().expect("read");
        assert_exact("forward", &got, &want);
        assert_eq!(gpu.counters().pipelines, before, "compiled ahead");
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let encoded = options.encode(&mut encoder, &x, &weights).expect("encode");
        gpu.queue().submit([encoder.finish()]);
        assert_exact("encoded", &encoded.submitted().to_array().expect("read"), &want);
        let plans = options.plan(gpu.profile(), xs, ds, ps).expect("plan");
        let fused = plans.len() == 1 && plans[0].kernel() == "fused" && plans[0].scratch_bytes() == 0;
        match kernel {
            SeparableKernel::Fused => assert!(fused, "{plans:?}"),
            SeparableKernel::Unfused => assert_eq!(plans.len(), 2),
            _ => assert!(!fused, "nine channels leave a tile mostly empty"),
        }
    }
    // By rule a GPU fuses where the outputs fill half a tile, and a CPU adapter does not.
    let first = |profile: &Profile| case.options.candidates(profile, xs, ds, &[32, 6, 1, 1]).expect("candidates")[0];
    let software = gpu.profile().class == AdapterClass::Cpu;
    assert_eq!(first(gpu.profile()) == SeparableKernel::Fused, !software);
    assert_eq!(first(&Profile::baseline()), SeparableKernel::Fused);
}

#[track_caller]
fn invalid<T: std::fmt::Debug>(result: Result<T, Error>, argument: &str) {
    match result {
        Err(Error::Invalid { op: "separable_conv2d", argument: got, .. }) if got == argument => {}
        other => panic!("expected an error about {argument}, got {other:?}"),
    }
}

#[test]
fn mistakes_are_typed_errors() {
    let new = SeparableConv2d::new;
    let (x, d, p) = ([1, 6, 9, 9], [6, 1, 3, 3], [4, 6, 1, 1]);
    assert_eq!(new().output_shape(&x, &d, &p).expect("good"), [1, 4, 7, 7]);
    for input in [&[6, 9, 9][..], &[1, 6, 9, 9, 1], &[0, 6, 9, 9], &[1, 6, 0, 9], &[]] {
        invalid(new().output_shape(input, &d, &p), "input");
    }
    for depthwise in [&[6, 3, 3][..], &[6, 2, 3, 3], &[12, 1, 3, 3], &[5, 1, 3, 3], &[6, 1, 0, 3], &[]] {
        invalid(new().output_shape(&x, depthwise, &p), "depthwise");
    }
    for pointwise in [&[4, 6][..], &[4, 5, 1, 1], &[4, 6, 1, 2], &[4, 6, 3, 3], &[0, 6, 1, 1], &[]] {
        invalid(new().output_shape(&x, &d, pointwise), "pointwise");
    }
    invalid(new().stride(0).output_shape(&x, &d, &p), "stride");
    invalid(new().dilation(0).output_shape(&x, &d, &p), "dilation");
    invalid(new().dilation(1 << 62).output_shape(&x, &d, &p), "kernel");
    invalid(new().padding(1 << 62).output_shape(&x, &d, &p), "padding");
    invalid(new().output_shape(&x, &[6, 1, 1 << 62, 3], &p), "kernel");
    let three = new().kernel(SeparableKernel::Fused).plan(&Profile::baseline(), &x, &d, &[3, 6, 1, 1]);
    invalid(three, "kernel");
    let huge = new().padding(1 << 20).output_shape(&x, &d, &p);
    assert!(matches!(huge, Err(Error::TooLarge { op: "separable_conv2d", .. })), "{huge:?}");
    // Steps that are never taken.
    assert_eq!(new().stride(1 << 62).output_shape(&x, &d, &p).expect("one window"), [1, 4, 1, 1]);
    let far = new().stride(1 << 62).dilation(1 << 62).padding((1 << 29) - 5);
    assert!(far.plan(&Profile::baseline(), &x, &[6, 1, 1, 1], &p).is_ok());

    let zeros = |shape: &[usize]| poisoned(shape);
    let (xt, dt, pt, good) = (zeros(&x), zeros(&d), zeros(&p), zeros(&[1, 4, 7, 7]));
    let weights = SeparableWeights { depthwise: &dt, depthwise_bias: None, pointwise: &pt, pointwise_bias: None };
    let five = zeros(&[5]);
    for kernel in [SeparableKernel::Fused, SeparableKernel::Unfused] {
        let new = || SeparableConv2d::new().kernel(kernel);
        invalid(new().forward(&xt, &SeparableWeights { depthwise_bias: Some(&five), ..weights }), "depthwise_bias");
        invalid(new().forward(&xt, &SeparableWeights { pointwise_bias: Some(&five), ..weights }), "pointwise_bias");
        invalid(new().forward(&xt, &SeparableWeights { pointwise: &dt, ..weights }), "pointwise");
        invalid(new().residual(&xt).forward(&xt, &weights), "residual");
        invalid(new().forward_into(&xt, &weights, &zeros(&[1, 4, 7, 8])), "output");
        invalid(new().residual(&good).forward_into(&xt, &weights, &good), "output");
        let square = zeros(&[1, 6, 9, 9]);
        let wide = zeros(&[6, 6, 1, 1]);
        let same = SeparableWeights { pointwise: &wide, ..weights };
        invalid(new().padding(1).forward_into(&square, &same, &square), "output");
        let other = Tensor::zeros(&crate::common::open(), &p).expect("zeros");
        invalid(new().forward(&xt, &SeparableWeights { pointwise: &other, ..weights }), "pointwise");
    }
}
