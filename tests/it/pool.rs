//! Pools: PyTorch's window rules against the reference and against values worked out by hand.

use ndarray::{Array, ArrayD, IxDyn};
use proptest::prelude::*;
use wgconv::reference::{AvgPoolSpec, MaxPoolSpec, avg_pool, global_avg_pool, max_pool};
use wgconv::{
    Activation, AvgPool, AvgPool1d, AvgPool2d, Error, GlobalAvgPool, Gpu, MaxPool, MaxPool1d, MaxPool2d, MaxPool3d,
    Tensor, ndarray,
};

use crate::common::{abs, assert_exact, assert_near, gpu, integers, linear_bound, poisoned, reals, tight, upload};

/// A row of a table: the options of both pools, dilation for max alone.
#[derive(Clone, Debug)]
struct Case<const R: usize> {
    kernel: [usize; R],
    stride: [usize; R],
    padding: [usize; R],
    dilation: [usize; R],
    ceil: bool,
}

impl<const R: usize> Case<R> {
    fn max(&self) -> (MaxPool<R>, MaxPoolSpec) {
        let options = MaxPool::new(self.kernel).stride(self.stride).padding(self.padding).dilation(self.dilation);
        let spec = MaxPoolSpec {
            stride: self.stride.into(),
            padding: self.padding.into(),
            dilation: self.dilation.into(),
            ceil_mode: self.ceil,
            ..MaxPoolSpec::new(&self.kernel)
        };
        (options.ceil_mode(self.ceil), spec)
    }

    fn avg(&self, include: bool) -> (AvgPool<R>, AvgPoolSpec) {
        let options = AvgPool::new(self.kernel).stride(self.stride).padding(self.padding).ceil_mode(self.ceil);
        let spec = AvgPoolSpec {
            stride: self.stride.into(),
            padding: self.padding.into(),
            ceil_mode: self.ceil,
            count_include_pad: include,
            ..AvgPoolSpec::new(&self.kernel)
        };
        (options.count_include_pad(include), spec)
    }

    /// Max exactly, averages within the bound, into poisoned outputs.
    #[track_caller]
    fn check(&self, shape: &[usize]) {
        let x = integers(shape, 7, 9);
        let (options, spec) = self.max();
        let want = max_pool(x.view(), &spec).expect("reference");
        assert_eq!(options.output_shape(shape).expect("shape"), want.shape(), "{self:?}");
        let out = poisoned(want.shape());
        options.forward_into(&upload(&x), &out).expect("max");
        assert_near(&format!("max {self:?} {shape:?}"), &out.to_array().expect("read"), &want, |_| 0.0);
        let x = reals(shape, 8);
        for include in [true, false] {
            let (options, spec) = self.avg(include);
            // Averages have no dilation, so their shape may be another.
            let Ok(want) = avg_pool(x.view(), &spec) else { continue };
            let out = poisoned(want.shape());
            options.forward_into(&upload(&x), &out).expect("avg");
            let taps: usize = self.kernel.iter().product();
            // The mean of the absolute values is S over the count: taps - 1 additions, and a division right to 2.5 ulp, 5 roundings.
            let bound = linear_bound(taps + 4, &avg_pool(abs(&x).view(), &spec).expect("reference"), 1.0, 1.001);
            let bound: Vec<f64> = bound.iter().copied().collect();
            let what = format!("avg {include} {self:?} {shape:?}");
            assert_near(&what, &out.to_array().expect("read"), &want, |i| bound[i]);
        }
    }
}

#[test]
fn awkward_2d() {
    for (kernel, stride, padding, dilation, ceil, shape) in [
        ([3, 3], [2, 2], [1, 1], [1, 1], false, [2, 3, 12, 11]),
        ([3, 3], [2, 2], [1, 1], [1, 1], true, [2, 3, 12, 11]),
        ([2, 2], [2, 2], [0, 0], [1, 1], true, [1, 2, 7, 5]),
        ([2, 3], [3, 1], [1, 1], [2, 3], true, [1, 5, 9, 13]),
        ([5, 1], [1, 4], [2, 0], [1, 1], false, [1, 1, 6, 6]),
        ([3, 2], [5, 6], [0, 0], [1, 1], true, [1, 1, 11, 12]),
        ([7, 7], [7, 7], [3, 3], [1, 1], true, [3, 2, 7, 7]),
        ([1, 1], [3, 2], [0, 0], [4, 9], false, [1, 2, 5, 5]),
        ([4, 4], [8, 8], [0, 0], [1, 1], true, [1, 1, 2, 3]),
    ] {
        Case { kernel, stride, padding, dilation, ceil }.check(&shape);
    }
}

#[test]
fn one_and_three_dimensions() {
    Case { kernel: [4], stride: [3], padding: [2], dilation: [3], ceil: true }.check(&[2, 3, 29]);
    let case = Case { kernel: [2, 3, 3], stride: [1, 2, 3], padding: [1, 0, 1], dilation: [1, 2, 1], ceil: true };
    case.check(&[2, 2, 5, 8, 7]);
}

/// Windows of a power of two elements: the adapters under test divide by such a count exactly. WGSL does not ask for it, there a division
/// may be off by 2.5 ulp.
#[test]
fn averages_of_integers_are_exact() {
    let x = integers(&[2, 5, 12, 16], 3, 50);
    for (options, kernel) in [(AvgPool2d::new(2), [2, 2]), (AvgPool2d::new([4, 8]), [4, 8])] {
        let got = options.forward(&upload(&x)).expect("forward").to_array().expect("read");
        assert_exact("avg", &got, &avg_pool(x.view(), &AvgPoolSpec::new(&kernel)).expect("reference"));
    }
    let x = integers(&[3, 5, 8, 16], 4, 50);
    let got = GlobalAvgPool::new().forward(&upload(&x)).expect("forward").to_array().expect("read");
    assert_exact("global", &got, &global_avg_pool(x.view()).expect("reference"));
}

fn line(values: &[f32]) -> Tensor {
    upload(&Array::from_shape_vec(IxDyn(&[1, 1, values.len()]), values.to_vec()).expect("line"))
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_array().expect("read").into_iter().collect()
}

/// What PyTorch gives.
#[test]
fn corner_rules_by_hand() {
    let max = |options: MaxPool1d, x: &[f32]| values(&options.forward(&line(x)).expect("max"));
    let avg = |options: AvgPool1d, x: &[f32]| values(&options.forward(&line(x)).expect("avg"));
    let stride = MaxPool1d::new(3).stride(2).padding(1);
    assert_eq!(max(stride.clone(), &[-1.0, -2.0, -3.0, -4.0]), [-1.0, -2.0]);
    assert_eq!(max(stride.clone().ceil_mode(true), &[-1.0, -2.0, -3.0, -4.0]), [-1.0, -2.0, -4.0]);
    // The fourth window would start behind the five inputs.
    let pairs = MaxPool1d::new(2).stride(2).padding(1).ceil_mode(true);
    assert_eq!(max(pairs, &[1.0, 2.0, 3.0, 4.0, 5.0]), [1.0, 3.0, 5.0]);
    // No tap of the window is inside.
    assert_eq!(max(MaxPool1d::new(2).padding(1).dilation(3), &[1.0, 2.0]), [f32::NEG_INFINITY]);
    let nan = max(stride.ceil_mode(true), &[1.0, f32::NAN, 3.0, 4.0]);
    assert!(nan[0].is_nan() && nan[1].is_nan() && nan[2] == 4.0, "{nan:?}");
    let infinite = max(MaxPool1d::new(2), &[f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, f32::NEG_INFINITY]);
    assert_eq!(infinite, [f32::NEG_INFINITY, f32::INFINITY]);
    let threes = AvgPool1d::new(3).stride(2).padding(1).ceil_mode(true);
    // The last window has one input, one padding, and one position beyond, which does not count.
    assert_eq!(avg(threes.clone(), &[2.0, 4.0, 6.0, 8.0]), [2.0, 6.0, 4.0]);
    assert_eq!(avg(threes.count_include_pad(false), &[2.0, 4.0, 6.0, 8.0]), [3.0, 6.0, 8.0]);
    // A window longer than the input, which ceil mode allows.
    assert_eq!(avg(AvgPool1d::new(4).stride(4).ceil_mode(true), &[1.0, 3.0]), [2.0]);
}

/// NaN and infinities reach only the windows that see them.
#[test]
fn what_is_not_finite_stays_in_its_windows() {
    let case = Case { kernel: [3, 3], stride: [2, 2], padding: [1, 1], dilation: [1, 1], ceil: true };
    let mut x = reals(&[1, 2, 9, 9], 5);
    x[[0, 0, 4, 4]] = f32::NAN;
    x[[0, 1, 0, 0]] = f32::INFINITY;
    x[[0, 1, 8, 7]] = f32::NEG_INFINITY;
    let (options, spec) = case.max();
    let got = options.forward(&upload(&x)).expect("max").to_array().expect("read");
    assert_near("max", &got, &max_pool(x.view(), &spec).expect("reference"), |_| 0.0);
    let (options, spec) = case.avg(true);
    let got = options.forward(&upload(&x)).expect("avg").to_array().expect("read");
    assert_near("avg", &got, &avg_pool(x.view(), &spec).expect("reference"), |_| 1e-6);
    let got = GlobalAvgPool::new().forward(&upload(&x)).expect("global").to_array().expect("read");
    assert!(got.iter().all(|v| v.is_nan()), "{got:?}");
}

#[test]
fn activation_comes_last() {
    let x = integers(&[1, 3, 8, 8], 6, 9);
    let relu = |y: ArrayD<f64>| y.mapv(|y| y.max(0.0));
    let got = MaxPool2d::new(2).activation(Activation::Relu).forward(&upload(&x)).expect("max");
    let want = max_pool(x.view(), &MaxPoolSpec::new(&[2, 2])).expect("reference");
    assert_exact("max", &got.to_array().expect("read"), &relu(want));
    let got = GlobalAvgPool::new().activation(Activation::Relu).forward(&upload(&x)).expect("global");
    assert_exact("global", &got.to_array().expect("read"), &relu(global_avg_pool(x.view()).expect("reference")));
}

/// Both kernels of the global pool, by the size of the plane.
#[test]
fn global_over_any_size() {
    for shape in [&[2, 3, 1][..], &[3, 70, 7, 7], &[1, 2, 63, 65], &[2, 1, 3, 4, 5], &[1, 1, 2, 2, 2, 2], &[1, 1, 4099]]
    {
        let x = reals(shape, 9);
        let flat =
            x.to_shape((shape[0], shape[1], x.len() / shape[0] / shape[1])).expect("flat").into_owned().into_dyn();
        let want = global_avg_pool(flat.view()).expect("reference");
        let out_shape = GlobalAvgPool::new().output_shape(shape).expect("shape");
        let want = want.into_shape_with_order(IxDyn(&out_shape)).expect("shape");
        let bound =
            linear_bound(flat.shape()[2] + 4, &global_avg_pool(abs(&flat).view()).expect("reference"), 1.0, 1.001);
        let bound: Vec<f64> = bound.iter().copied().collect();
        let out = poisoned(&out_shape);
        GlobalAvgPool::new().forward_into(&upload(&x), &out).expect("global");
        assert_near(&format!("global {shape:?}"), &out.to_array().expect("read"), &want, |i| bound[i]);
    }
}

/// Bindings of 4 KiB: parts of planes, and of rows where a plane is larger.
#[test]
fn windows_over_the_binding_limit() {
    let gpu = tight();
    let put = |gpu: &Gpu, x: &ArrayD<f32>| Tensor::from_array(gpu, x).expect("upload");
    let case = Case { kernel: [3, 3], stride: [2, 1], padding: [1, 1], dilation: [2, 1], ceil: true };
    for shape in [[2, 7, 13, 11], [1, 3, 37, 41], [1, 2, 90, 33]] {
        let x = integers(&shape, 10, 9);
        let (options, spec) = case.max();
        assert!(options.plan(gpu.profile(), &shape).expect("plan").dispatches() > 1);
        let got = options.forward(&put(&gpu, &x)).expect("max").to_array().expect("read");
        assert_exact(&format!("max {shape:?}"), &got, &max_pool(x.view(), &spec).expect("reference"));
        let got = GlobalAvgPool::new().forward(&put(&gpu, &x)).expect("global").to_array().expect("read");
        assert_near("global", &got, &global_avg_pool(x.view()).expect("reference"), |_| 1e-5);
    }
    let wide = put(&gpu, &ArrayD::zeros(IxDyn(&[1, 1, 2, 1200])));
    let error = MaxPool2d::new(2).forward(&wide).expect_err("a row does not fit");
    assert!(matches!(error, Error::TooLarge { op: "max_pool2d", .. }), "{error}");
}

#[test]
fn mistakes_are_typed_errors() {
    let huge = 1usize << 62;
    let shape = [1, 2, 8, 8];
    let argument = |error: Error| match error {
        Error::Invalid { op, argument, .. } => (op, argument),
        other => panic!("{other}"),
    };
    let max = |options: MaxPool2d| options.output_shape(&shape).map_err(argument);
    let err = |argument| Err(("max_pool2d", argument));
    assert_eq!(max(MaxPool2d::new(0)), err("kernel"));
    assert_eq!(max(MaxPool2d::new(9)), err("kernel"));
    assert_eq!(max(MaxPool2d::new(huge)), err("kernel"));
    assert_eq!(max(MaxPool2d::new(2).stride(0)), err("stride"));
    assert_eq!(max(MaxPool2d::new(2).dilation(0)), err("dilation"));
    assert_eq!(max(MaxPool2d::new(2).dilation(huge)), err("kernel"));
    assert_eq!(max(MaxPool2d::new(2).dilation(usize::MAX)), err("kernel"));
    assert_eq!(max(MaxPool2d::new(3).padding(2)), err("padding"));
    assert_eq!(max(MaxPool2d::new(huge).padding(huge / 2).ceil_mode(true)), err("padding"));
    assert_eq!(max(MaxPool2d::new(2).stride(huge)), Ok(vec![1, 2, 1, 1]));
    assert_eq!(max(MaxPool2d::new(2).stride(usize::MAX).ceil_mode(true)), Ok(vec![1, 2, 1, 1]));
    // One window of ceil mode with a tap far outside.
    let far = MaxPool2d::new(2).stride(huge).dilation(huge - 9).ceil_mode(true);
    assert_eq!(max(far.clone()), Ok(vec![1, 2, 1, 1]));
    let x = integers(&shape, 1, 9);
    let got = far.forward(&upload(&x)).expect("forward").to_array().expect("read");
    assert_eq!((got[[0, 0, 0, 0]], got[[0, 1, 0, 0]]), (x[[0, 0, 0, 0]], x[[0, 1, 0, 0]]));
    for shape in [&[1, 2, 8][..], &[], &[1, 2, 8, 0], &[0, 2, 8, 8]] {
        assert_eq!(AvgPool2d::new(2).output_shape(shape).map_err(argument), Err(("avg_pool2d", "input")));
    }
    assert!(matches!(MaxPool3d::new(1).output_shape(&[huge, huge, 1, 1, 1]), Err(Error::TooLarge { .. })));
    assert_eq!(GlobalAvgPool::new().output_shape(&[2, 3]).map_err(argument), Err(("global_avg_pool", "input")));
    assert!(GlobalAvgPool::new().output_shape(&[huge, huge, 9]).is_err());
    let x = upload(&x);
    assert!(MaxPool2d::new(1).forward_into(&x, &x).is_err());
    assert!(MaxPool2d::new(2).forward_into(&x, &poisoned(&[1, 2, 4, 5])).is_err());
    let mut encoder = gpu().device().create_command_encoder(&wgconv::wgpu::CommandEncoderDescriptor::default());
    let encoded = MaxPool2d::new(2).encode(&mut encoder, &x).expect("encode");
    gpu().queue().submit([encoder.finish()]);
    let direct = MaxPool2d::new(2).forward(&x).expect("forward");
    assert_eq!(values(&encoded.submitted()), values(&direct));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_shapes(
        kernel in prop::array::uniform2(1usize..6),
        stride in prop::array::uniform2(1usize..5),
        dilation in prop::array::uniform2(1usize..4),
        pad in prop::array::uniform2(0usize..3),
        extent in prop::array::uniform2(1usize..20),
        planes in (1usize..3, 1usize..4),
        ceil in any::<bool>(),
    ) {
        let padding = [pad[0].min(kernel[0] / 2), pad[1].min(kernel[1] / 2)];
        let case = Case { kernel, stride, padding, dilation, ceil };
        let shape = [planes.0, planes.1, extent[0], extent[1]];
        let (options, spec) = case.max();
        let legal = max_pool(ArrayD::<f32>::zeros(IxDyn(&shape)).view(), &spec).is_ok();
        prop_assert_eq!(options.output_shape(&shape).is_ok(), legal);
        if legal {
            case.check(&shape);
        }
    }
}
