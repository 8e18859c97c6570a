//! Deformable convolution: every kernel that is offered for a problem against the reference.

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;
use wgconv::reference::{DeformSpec, deform_conv2d};
use wgconv::{
    Activation, AdapterClass, Cache, Conv2d, DeformConv2d, DeformKernel, Error, Gpu, Profile, Tensor, ndarray, wgpu,
};

use crate::common::{
    abs, assert_bounded, assert_exact, gpu, integers, largest, linear_bound, poisoned, reals, to_run, upload,
};

/// The arrays of a problem.
struct Case {
    spec: DeformSpec,
    x: ArrayD<f32>,
    offset: ArrayD<f32>,
    mask: Option<ArrayD<f32>>,
    w: ArrayD<f32>,
    bias: ArrayD<f32>,
}

/// Stride, dilation, pads, weight groups, offset groups.
type Options = ([usize; 2], [usize; 2], [(usize, usize); 2], usize, usize);

const PLAIN: Options = ([1, 1], [1, 1], [(0, 0), (0, 0)], 1, 1);

fn spec((stride, dilation, pads, groups, offset_groups): Options) -> DeformSpec {
    DeformSpec { stride, dilation, pads, groups, offset_groups }
}

impl Case {
    /// Small integers, with offsets and masks of whole and half numbers: f32 is exact on them.
    fn exact(options: Options, x: &[usize], w: &[usize], has_mask: bool) -> Self {
        let halves = |shape: &[usize], seed, most| integers(shape, seed, most) / 2.0;
        Self::new(options, x, w, has_mask, (|shape, seed| integers(shape, seed, 3), halves))
    }

    fn new(
        options: Options,
        x: &[usize],
        w: &[usize],
        has_mask: bool,
        (values, offsets): (impl Fn(&[usize], u64) -> ArrayD<f32>, impl Fn(&[usize], u64, i32) -> ArrayD<f32>),
    ) -> Self {
        let spec = spec(options);
        let shape = case_options(&spec).output_shape(x, w).expect("shape");
        let fields = spec.offset_groups * w[2] * w[3];
        Self {
            x: values(x, 1),
            offset: offsets(&[x[0], 2 * fields, shape[2], shape[3]], 2, 7),
            mask: has_mask.then(|| offsets(&[x[0], fields, shape[2], shape[3]], 3, 4)),
            w: values(w, 4),
            bias: values(&[w[0]], 5),
            spec,
        }
    }

    fn want(&self) -> ArrayD<f64> {
        let mask = self.mask.as_ref().map(|mask| mask.view());
        deform_conv2d(self.x.view(), self.offset.view(), mask, self.w.view(), Some(self.bias.view()), &self.spec)
            .expect("reference")
    }

    /// The bound of every kernel, in units of `u = eps/2` and to first order. A weight along an axis is the fraction of a coordinate
    /// or 1 minus it, and both are exact or rounded once: 1. Their product is 3 off, times a neighbour 4, the sum of four
    /// neighbours 6, times the mask 7, times the weight 8; a sum of n terms adds n. All but the input's values being non-negative in the
    /// interpolation, `S` is the reference on absolute values. So `|gpu - ref| <= (n + 10)*u*S + tiny`, 10 for what is of second order:
    /// c = 6 for n >= 1 in the form c*eps*n*S. What is flushed to 0 on the way of a sample is multiplied by input, mask and weight that
    /// follow: `8*n*2^-126*(W + 1)*(M + 1)*(X + 1)` (docs/numerics.md), W, M and X the largest of each.
    fn bound(&self) -> ArrayD<f64> {
        let mask = self.mask.as_ref().map(abs);
        let (x, w, bias) = (abs(&self.x), abs(&self.w), abs(&self.bias));
        let mask_view = mask.as_ref().map(|mask| mask.view());
        let absolute = deform_conv2d(x.view(), self.offset.view(), mask_view, w.view(), Some(bias.view()), &self.spec)
            .expect("reference");
        let n = w.len() / w.shape()[0] + 2;
        let m = mask.as_ref().map_or(1.0, |mask| largest(mask.view())).max(1.0);
        let flushed = (largest(w.view()) + 1.0) * (m + 1.0) * (largest(x.view()) + 1.0);
        linear_bound(n + 10, &absolute, 0.0, 1.0) + 8.0 * n as f64 * f64::from(f32::MIN_POSITIVE) * flushed
    }

    /// What every candidate gives, written over NaNs.
    #[track_caller]
    fn results(&self, gpu: &Gpu) -> Vec<(DeformKernel, ArrayD<f32>)> {
        let on = |array: &ArrayD<f32>| Tensor::from_array(gpu, array).expect("upload");
        let (x, offset, w, bias) = (on(&self.x), on(&self.offset), on(&self.w), on(&self.bias));
        let mask = self.mask.as_ref().map(on);
        let options = case_options(&self.spec);
        let shape = options.output_shape(self.x.shape(), self.w.shape()).expect("shape");
        let kernels = options.candidates(gpu.profile(), self.x.shape(), self.w.shape()).expect("candidates");
        let run = |kernel| {
            let out = on(&ArrayD::from_elem(IxDyn(&shape), f32::NAN));
            let options = options.clone().kernel(kernel);
            options.forward_into(&x, &offset, &w, Some(&bias), mask.as_ref(), &out).expect("forward");
            (kernel, out.to_array().expect("read"))
        };
        to_run(kernels).into_iter().map(run).collect()
    }

    fn name(&self, kernel: DeformKernel) -> String {
        format!("{kernel:?} x {:?} w {:?} mask {} {:?}", self.x.shape(), self.w.shape(), self.mask.is_some(), self.spec)
    }

    #[track_caller]
    fn check_exact(&self, gpu: &Gpu) {
        let want = self.want();
        for (kernel, got) in self.results(gpu) {
            assert_exact(&self.name(kernel), &got, &want);
        }
    }

    #[track_caller]
    fn check_bounded(&self) {
        let (want, bound) = (self.want(), self.bound());
        for (kernel, got) in self.results(&gpu()) {
            assert_bounded(&self.name(kernel), &got, &want, &bound);
        }
    }
}

fn case_options(spec: &DeformSpec) -> DeformConv2d {
    let options = DeformConv2d::new().stride(spec.stride).dilation(spec.dilation).padding(spec.pads);
    options.groups(spec.groups).offset_groups(spec.offset_groups)
}

/// Rows: options, input shape, weight shape.
#[test]
fn awkward() {
    let one = [(1, 1), (1, 1)];
    let none = [(0, 0), (0, 0)];
    for (options, x, w) in [
        (([1, 1], [1, 1], one, 1, 1), [1, 8, 12, 12], [16, 8, 3, 3]),
        (([1, 1], [1, 1], one, 1, 1), [2, 17, 9, 7], [19, 17, 3, 3]),
        (([2, 3], [1, 2], [(0, 2), (3, 1)], 1, 5), [1, 5, 11, 14], [7, 5, 3, 2]),
        (([1, 1], [1, 1], none, 1, 1), [3, 8, 4, 4], [16, 8, 1, 1]),
        (([1, 1], [1, 1], none, 2, 4), [2, 16, 6, 6], [24, 8, 1, 1]),
        (([1, 1], [2, 1], one, 4, 2), [2, 16, 9, 6], [8, 4, 3, 3]),
        (([1, 1], [1, 1], one, 2, 6), [1, 24, 7, 5], [10, 12, 3, 3]),
        (([2, 1], [1, 1], [(1, 0), (2, 2)], 3, 1), [2, 9, 9, 9], [12, 3, 3, 5]),
        (([1, 1], [1, 1], one, 6, 3), [2, 6, 7, 5], [12, 1, 3, 3]),
        (([1, 1], [1, 1], one, 1, 6), [1, 6, 7, 5], [3, 6, 3, 3]),
        (([1, 1], [3, 2], [(6, 6), (4, 4)], 1, 2), [1, 4, 13, 9], [40, 4, 5, 5]),
        (([1, 1], [1, 1], [(4, 4), (5, 5)], 1, 1), [1, 3, 3, 2], [5, 3, 2, 2]),
        (([5, 5], [1, 1], none, 1, 1), [1, 3, 5, 5], [33, 3, 5, 5]),
        (([1, 1], [1, 1], none, 1, 1), [8, 1, 10, 10], [16, 1, 3, 3]),
        (([1, 1], [1, 1], none, 1, 1), [1, 64, 1, 1], [10, 64, 1, 1]),
        // Several tiles of outputs over few channels, whose weight group spans offset groups.
        (([1, 1], [1, 1], one, 2, 4), [3, 8, 7, 5], [40, 4, 3, 3]),
        (([1, 2], [2, 1], one, 2, 2), [2, 4, 8, 9], [34, 2, 3, 3]),
        // More channels than one thread samples.
        (([1, 1], [1, 1], none, 1, 1), [1, 150, 3, 4], [8, 150, 2, 1]),
    ] {
        for has_mask in [false, true] {
            Case::exact(options, &x, &w, has_mask).check_exact(&gpu());
        }
    }
}

/// Few channels, and inputs that fill a uniform array of each size, or more than half of it, or lie in the caller's buffer.
#[test]
fn few_channels_in_small_inputs() {
    let options = ([1, 1], [1, 1], [(1, 1), (1, 1)], 1, 1);
    let guarded = Gpu::builder().adapter_from_env().cache(Cache::Off).guarded(true).build_blocking().expect("device");
    for x in [[1, 1, 1, 2049], [4, 1, 32, 32], [8, 1, 28, 28], [3, 3, 24, 24], [16, 1, 32, 32], [3, 2, 52, 53]] {
        for (gpu, has_mask) in [(gpu(), false), (guarded.clone(), true)] {
            Case::exact(options, &x, &[16, x[1], 3, 3], has_mask).check_exact(&gpu);
        }
    }
    guarded.check_guards().expect("nothing beside the tensors");

    let gpu = gpu();
    let case = Case::exact(options, &[8, 1, 28, 28], &[16, 1, 3, 3], false);
    let [offset, w, bias] = [&case.offset, &case.w, &case.bias].map(upload);
    let values: Vec<u8> = case.x.iter().flat_map(|value| value.to_le_bytes()).collect();
    let raw = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: values.len() as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    gpu.queue().write_buffer(&raw, 0, &values);
    let x = Tensor::from_buffer(&gpu, raw, case.x.shape()).expect("wrap");
    let y = case_options(&case.spec).forward(&x, &offset, &w, Some(&bias), None).expect("forward");
    assert_exact("wrapped", &y.to_array().expect("read"), &case.want());
}

#[test]
fn zero_offsets_are_a_convolution() {
    let options = ([2, 1], [1, 2], [(1, 2), (2, 0)], 2, 4);
    let mut case = Case::exact(options, &[2, 8, 9, 11], &[12, 4, 3, 3], false);
    case.offset.fill(0.0);
    let conv = Conv2d::new().stride([2, 1]).dilation([1, 2]).padding([(1, 2), (2, 0)]).groups(2);
    let want = conv.forward(&upload(&case.x), &upload(&case.w), Some(&upload(&case.bias))).expect("forward");
    let want = want.to_array().expect("read").mapv(f64::from);
    for (kernel, got) in case.results(&gpu()) {
        assert_exact(&case.name(kernel), &got, &want);
    }
}

/// Every pair of coordinates from a list of awkward ones, one an image, whose only output lies at the origin: the offset is the
/// coordinate.
#[test]
fn coordinates_at_every_edge() {
    for (h, w) in [(5, 7), (1, 2)] {
        let list = |extent: f32| {
            let mut list = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 3e9, -0.0, 1e-9, -1e-9, 0.25];
            for edge in [-1.0, 0.0, extent - 1.0, extent] {
                list.extend([f32::next_down(edge), edge, f32::next_up(edge)]);
            }
            list
        };
        let (ys, xs) = (list(h as f32), list(w as f32));
        let count = ys.len() * xs.len();
        for channels in [4, 1] {
            let mut options = PLAIN;
            options.0 = [100, 100];
            let mut case = Case::exact(options, &[count, channels, h, w], &[5, channels, 1, 1], false);
            let pairs = ys.iter().flat_map(|y| xs.iter().map(move |x| [*y, *x])).flatten();
            case.offset = ArrayD::from_shape_vec(case.offset.raw_dim(), pairs.collect()).expect("offsets");
            case.check_bounded();
        }
    }
}

/// The grid is so far out that the sum with the offset is rounded, by much more than the bound.
#[test]
fn the_coordinate_is_one_f32_addition() {
    let mut case = Case::exact(PLAIN, &[1, 4, 1, 5000], &[4, 4, 1, 1], true);
    case.x = ArrayD::from_shape_fn(case.x.raw_dim(), |i| if i[3] % 2 == 0 { -1000.0 } else { 1000.0 });
    case.w = ArrayD::from_elem(case.w.raw_dim(), 1.0);
    case.offset =
        ArrayD::from_shape_fn(case.offset.raw_dim(), |i| if i[1] == 1 { 1e-4 * (i[3] % 7) as f32 } else { 0.0 });
    case.check_bounded();
}

#[test]
fn a_mask_of_ones_changes_no_bit() {
    let options = ([1, 1], [1, 1], [(1, 1), (1, 1)], 1, 2);
    for channels in [16, 6] {
        let values = (reals as fn(&[usize], u64) -> _, |shape: &[usize], seed, _: i32| reals(shape, seed) * 3.0);
        let mut case = Case::new(options, &[1, channels, 10, 9], &[8, channels, 3, 3], true, values);
        case.mask.iter_mut().for_each(|mask| mask.fill(1.0));
        let with = case.results(&gpu());
        case.mask = None;
        for ((kernel, with), (_, without)) in with.into_iter().zip(case.results(&gpu())) {
            let bits = |array: ArrayD<f32>| array.mapv(f32::to_bits);
            assert_eq!(bits(with), bits(without), "{}", case.name(kernel));
        }
    }
}

/// Where the reference is NaN or infinite, so is the result, and nowhere else: NaN and Inf in the input, the mask and the weight, under
/// points inside, at integers, at the border and far away. Seven channels leave an idle one in the last block.
#[test]
fn nan_and_infinity_stay_in_their_window() {
    for (channels, groups) in [(7, 1), (8, 2), (2, 2)] {
        for kind in 0..6 {
            let options = ([1, 1], [1, 1], [(1, 1), (1, 1)], groups, 1);
            let mut case = Case::exact(options, &[1, channels, 9, 10], &[8, channels / groups, 3, 3], true);
            case.offset[[0, 8, 3, 3]] = 1e30;
            case.offset[[0, 9, 5, 5]] = f32::NAN;
            let mask = case.mask.as_mut().expect("mask");
            match kind {
                0 => case.x[[0, channels - 1, 4, 4]] = f32::NAN,
                1 => case.x[[0, 0, 0, 0]] = f32::INFINITY,
                2 => (mask[[0, 4, 3, 3]], mask[[0, 4, 5, 5]]) = (f32::NAN, f32::INFINITY),
                3 => {
                    // All positive, so that the sum is infinite and not NaN: the idle channel adds no 0 times infinity.
                    for array in [&mut case.x, &mut case.w, &mut *mask] {
                        array.mapv_inplace(|v| v.abs() + 1.0);
                    }
                    (case.offset[[0, 4, 6, 7]], case.offset[[0, 5, 6, 7]]) = (0.5, -0.5);
                    mask[[0, 2, 6, 7]] = f32::INFINITY;
                }
                4 => case.w[[3, 0, 1, 1]] = f32::NAN,
                _ => case.x[[0, 1, 8, 9]] = f32::NEG_INFINITY,
            }
            let want = case.want();
            for (kernel, got) in case.results(&gpu()) {
                for ((index, &g), &w) in got.indexed_iter().zip(&want) {
                    let same = f64::from(g) == w || (g.is_nan() && w.is_nan());
                    assert!(same, "kind {kind}: {}: at {index:?} got {g}, want {w}", case.name(kernel));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_problems_are_within_the_bound(
        (batch, per_group, out_per_group) in (1usize..3, 1usize..10, 1usize..12),
        (groups, split) in (1usize..4, 0usize..4),
        (h, w, kh, kw) in (1usize..12, 1usize..12, 1usize..4, 1usize..4),
        (stride, dilation, pads) in ([1usize..3, 1..3], [1usize..3, 1..3], [(2usize..5, 2usize..5), (2..5, 2..5)]),
        (has_mask, reach, seed) in (any::<bool>(), 0.1f32..6.0, any::<u64>()),
    ) {
        let c_in = per_group * groups;
        let divisors: Vec<usize> = (1..=c_in).filter(|d| c_in % d == 0).collect();
        let options = (stride, dilation, pads, groups, divisors[split % divisors.len()]);
        let values = (
            |shape: &[usize], s| reals(shape, seed ^ s),
            |shape: &[usize], s, _| reals(shape, seed ^ s) * reach,
        );
        Case::new(options, &[batch, c_in, h, w], &[out_per_group * groups, per_group, kh, kw], has_mask, values)
            .check_bounded();
    }
}

/// Bias, then residual, then activation, on images whose positions fill vec4s and on others.
#[test]
fn epilogue() {
    for (channels, width) in [(8, 8), (8, 7), (3, 8), (3, 7)] {
        let options = ([1, 1], [1, 1], [(1, 1), (1, 1)], 1, 1);
        let case = Case::exact(options, &[2, channels, 8, width], &[9, channels, 3, 3], true);
        let want = case.want();
        let residual = integers(want.shape(), 9, 5);
        let (x, offset, w, bias) = (upload(&case.x), upload(&case.offset), upload(&case.w), upload(&case.bias));
        let mask = case.mask.as_ref().map(upload);
        let sum = &want + &residual.mapv(f64::from);
        let profile = gpu().profile().clone();
        for kernel in DeformConv2d::new().padding(1).candidates(&profile, x.shape(), w.shape()).expect("candidates") {
            let options = DeformConv2d::new().padding(1).residual(&upload(&residual)).kernel(kernel);
            for (activation, f) in [
                (Activation::Relu, (|v| v.max(0.0)) as fn(f64) -> f64),
                (Activation::LeakyRelu(0.25), |v| if v < 0.0 { v * 0.25 } else { v }),
                (Activation::HardSwish, |v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0)),
            ] {
                let got = options.clone().activation(activation);
                let got = got.forward(&x, &offset, &w, Some(&bias), mask.as_ref()).expect("forward");
                // Exact but for hard swish, which divides.
                let bound = sum.mapv(|v| if activation == Activation::HardSwish { v * v * 1e-6 + 1e-6 } else { 0.0 });
                assert_bounded(
                    &format!("{kernel:?} {activation:?}"),
                    &got.to_array().expect("read"),
                    &sum.mapv(f),
                    &bound,
                );
            }
            let plain = DeformConv2d::new().padding(1).kernel(kernel);
            let got = plain.forward(&x, &offset, &w, None, mask.as_ref()).expect("forward").to_array().expect("read");
            let bias = case.bias.to_shape((1, 9, 1, 1)).expect("bias").mapv(f64::from);
            assert_exact(&format!("{kernel:?} without bias"), &got, &(&want - &bias));
        }
    }
}

#[test]
fn encoded_and_prepared() {
    let case = Case::exact(PLAIN, &[1, 8, 12, 11], &[8, 8, 3, 3], true);
    let (x, offset, bias) = (upload(&case.x), upload(&case.offset), upload(&case.bias));
    let mask = case.mask.as_ref().map(upload);
    let gpu = gpu();
    let w = DeformConv2d::new().prepare(&upload(&case.w), case.x.shape()).expect("prepare");
    for kernel in DeformConv2d::new().candidates(gpu.profile(), x.shape(), w.shape()).expect("candidates") {
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let options = DeformConv2d::new().kernel(kernel);
        let encoded = options.encode(&mut encoder, &x, &offset, &w, Some(&bias), mask.as_ref()).expect("encode");
        gpu.queue().submit([encoder.finish()]);
        assert_exact("encode", &encoded.submitted().to_array().expect("read"), &case.want());
    }
}

/// A device whose bindings hold little: images in parts, slices, and for the direct kernel parts of an image's channels.
#[test]
fn bindings_too_small() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 16384, ..wgpu::Limits::default() };
    let gpu = Gpu::builder().adapter_from_env().cache(Cache::Off).limits(limits).build_blocking().expect("device");
    let most_steps = |x: &[usize], w: &[usize], options: DeformConv2d| {
        options.plan(gpu.profile(), x, w, true).expect("plan").dispatches()
    };
    let one = [(1, 1), (1, 1)];
    for (options, x, w, sliced) in [
        // Whole images.
        (([1, 1], [1, 1], one, 1, 1), [30, 4, 6, 6], [8, 4, 3, 3], true),
        (([1, 1], [1, 1], one, 1, 1), [60, 1, 5, 5], [8, 1, 3, 3], true),
        // The input as one uniform array in each part.
        (([1, 1], [1, 1], one, 1, 1), [60, 1, 7, 7], [8, 1, 3, 3], true),
        // Slices of an image.
        (([1, 1], [1, 1], one, 1, 1), [3, 8, 12, 12], [8, 8, 3, 3], true),
        // Offsets of an image, or its channels, or the weights, are too large.
        (([1, 1], [1, 1], one, 1, 4), [2, 8, 9, 9], [6, 8, 3, 3], false),
        (([1, 1], [1, 1], one, 2, 1), [2, 400, 5, 5], [4, 200, 3, 3], false),
        (([1, 1], [2, 1], [(2, 2), (1, 1)], 2, 5), [2, 30, 9, 9], [60, 15, 3, 3], false),
    ] {
        let case = Case::exact(options, &x, &w, true);
        let kernels = case_options(&case.spec).candidates(gpu.profile(), &x, &w).expect("candidates");
        // The columns of one tile of positions of the third row fit the binding with eight lanes, not with more.
        let can = gpu.profile().subgroup.is_some_and(|lanes| lanes <= 8 || x[0] != 3);
        assert_eq!(kernels.contains(&DeformKernel::Sliced), sliced && can, "{}", case.name(kernels[0]));
        for &kernel in &kernels {
            assert!(most_steps(&x, &w, case_options(&case.spec).kernel(kernel)) > 1, "{}", case.name(kernel));
        }
        case.check_exact(&gpu);
    }
    for (x, w, argument) in [([1, 1, 70, 70], [4, 1, 3, 3], "input"), ([1, 1, 20, 20], [4, 1, 3, 3], "offset")] {
        let error = DeformConv2d::new().plan(gpu.profile(), &x, &w, true).expect_err("too large");
        assert!(matches!(&error, Error::TooLarge { argument: got, .. } if *got == argument), "{error}");
    }
}

/// Copy and columns together no larger than input and offsets, or than the copy and the columns of a tile of positions; only beside a small
/// input the copy does not count.
#[test]
fn scratch_is_bounded() {
    let sliced = Profile { subgroup: Some(8), class: AdapterClass::Cpu, ..Profile::baseline() };
    for (x, w, options, small) in [
        ([1, 128, 56, 56], [128, 128, 3, 3], DeformConv2d::new().padding(1), true),
        ([4, 512, 25, 38], [512, 512, 3, 3], DeformConv2d::new().padding(1), false),
        ([1, 128, 100, 152], [128, 128, 3, 3], DeformConv2d::new().padding(1), false),
        ([1, 512, 50, 50], [64, 512, 3, 3], DeformConv2d::new().padding(1), false),
        ([90, 64, 14, 15], [64, 64, 1, 1], DeformConv2d::new(), false),
        ([2, 64, 9, 9], [64, 64, 7, 7], DeformConv2d::new().padding(3), true),
        ([8, 1, 28, 28], [16, 1, 3, 3], DeformConv2d::new(), true),
        ([1, 256, 4, 4], [32, 256, 3, 3], DeformConv2d::new().padding(1), true),
    ] {
        let plan = options.clone().kernel(DeformKernel::Sliced).plan(&sliced, &x, &w, true).expect("plan");
        let y = plan.output_shape();
        let (input, offsets) = (4 * x.iter().product::<usize>(), 8 * x[0] * w[2] * w[3] * y[2] * y[3]);
        assert_eq!(input + offsets <= 4 << 20, small);
        let (tile, image) = (4 * 32 * x[1].next_multiple_of(4) * w[2] * w[3], input / x[0]);
        let copy = if small { input } else { 0 };
        let most = (input + offsets).max(image + tile) + copy + 16;
        assert!(plan.scratch_bytes() <= most as u64, "{} over {most}: {plan}", plan.scratch_bytes());
        // Most of it is used, so that slices are long.
        let least = (input + offsets).min(x[0] * y[2] * y[3] * tile / 32 + input) / 3;
        assert!(plan.scratch_bytes() >= least as u64, "{} under {least}: {plan}", plan.scratch_bytes());
        // Few channels and a GPU make no columns.
        let plan = options.plan(&sliced, &x, &w, true).expect("plan");
        let by_rule = if x[1] > 1 { "sliced" } else { "few channels" };
        assert!(plan.kernel() == by_rule && (x[1] > 1 || plan.scratch_bytes() == 0), "{plan}");
        if x[1] > 1 {
            let plan = options.plan(&Profile::baseline(), &x, &w, true).expect("plan");
            assert_eq!((plan.kernel(), plan.dispatches()), ("fused", 2));
            assert!(plan.scratch_bytes() <= input as u64 + 16, "{plan}");
        }
    }
}

#[track_caller]
fn refused<T>(result: wgconv::Result<T>, name: &str) {
    match result.err() {
        Some(Error::Invalid { op: "deform_conv2d", argument, .. }) => assert_eq!(argument, name),
        other => panic!("{name}: {other:?}"),
    }
}

/// Up to 2^24 rows and columns, padding counted, f32 has every position of the grid.
#[test]
fn extents_beyond_f32_are_refused() {
    let most = 1 << 24;
    for (h, w, pads, fits) in [
        (1, most, [(0, 0), (0, 0)], true),
        (1, most + 1, [(0, 0), (0, 0)], false),
        (most, 1, [(0, 0), (0, 0)], true),
        (most + 1, 1, [(0, 0), (0, 0)], false),
        (1, most - 3, [(0, 0), (1, 2)], true),
        (1, most - 3, [(0, 0), (2, 2)], false),
        (1, 1, [(most - 1, 0), (0, 0)], true),
        (1, 1, [(0, most), (0, 0)], false),
    ] {
        let (x, weight) = ([1, 1, h, w], [1, 1, 1, 1]);
        let options = DeformConv2d::new().padding(pads).stride(1 << 10);
        if fits {
            assert!(options.output_shape(&x, &weight).is_ok(), "{x:?} {pads:?}");
        } else {
            refused(options.output_shape(&x, &weight), "input");
            refused(options.plan(&Profile::baseline(), &x, &weight, true), "input");
        }
    }
}

#[test]
fn mistakes_are_typed_errors() {
    let (x, w) = ([1, 8, 9, 9], [4, 8, 3, 3]);
    let new = DeformConv2d::new;
    refused(new().output_shape(&[8, 9, 9], &w), "input");
    refused(new().output_shape(&[1, 8, 0, 9], &w), "input");
    refused(new().output_shape(&x, &[4, 8, 3]), "weight");
    refused(new().output_shape(&x, &[4, 7, 3, 3]), "weight");
    refused(new().groups(3).output_shape(&x, &w), "groups");
    refused(new().groups(0).output_shape(&x, &w), "groups");
    refused(new().offset_groups(0).output_shape(&x, &w), "offset_groups");
    refused(new().offset_groups(3).output_shape(&x, &w), "offset_groups");
    refused(new().offset_groups(usize::MAX).output_shape(&x, &w), "offset_groups");
    refused(new().stride(0).output_shape(&x, &w), "stride");
    refused(new().dilation(0).output_shape(&x, &w), "dilation");
    refused(new().dilation(1 << 62).output_shape(&x, &w), "kernel");
    refused(new().padding(1 << 62).output_shape(&x, &w), "padding");
    refused(new().output_shape(&x, &[4, 8, 1 << 62, 3]), "kernel");
    refused(new().kernel(DeformKernel::Sliced).plan(&Profile::baseline(), &x, &w, true), "kernel");
    assert_eq!(new().stride(1 << 62).output_shape(&x, &w).expect("one window"), [1, 4, 1, 1]);
    assert!(new().stride(1 << 62).dilation(1 << 62).plan(&Profile::baseline(), &x, &[4, 8, 1, 1], false).is_ok());
    let huge = new().offset_groups(1 << 20).padding(100).output_shape(&[1, 1 << 20, 1, 1], &[1, 1 << 20, 3, 3]);
    assert!(matches!(huge, Err(Error::TooLarge { argument: "offset", .. })), "{huge:?}");

    let zeros = |shape: &[usize]| poisoned(shape);
    let (xt, wt, offset, mask) = (zeros(&x), zeros(&w), zeros(&[1, 18, 7, 7]), zeros(&[1, 9, 7, 7]));
    let bias = zeros(&[4]);
    refused(new().forward(&xt, &mask, &wt, None, None), "offset");
    refused(new().forward(&xt, &offset, &wt, None, Some(&offset)), "mask");
    refused(new().forward(&xt, &offset, &wt, Some(&zeros(&[5])), Some(&mask)), "bias");
    refused(new().residual(&xt).forward(&xt, &offset, &wt, Some(&bias), None), "residual");
    refused(new().forward_into(&xt, &offset, &wt, None, None, &zeros(&[1, 4, 7, 8])), "output");
    let square = DeformConv2d::new().padding(1);
    let (xs, ws, fields) = (zeros(&[1, 18, 5, 5]), zeros(&[18, 18, 3, 3]), zeros(&[1, 18, 5, 5]));
    refused(square.forward_into(&xs, &fields, &ws, None, None, &fields), "output");
}
