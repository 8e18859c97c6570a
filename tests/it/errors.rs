//! Every mistake a caller can make is a typed error that names the operator and the argument; nothing panics, nothing is lost.

use wgconv::{
    AdapterClass, Add, AvgPool2d, Border, Conv1d, Conv2d, Conv3d, ConvKernel, ConvTranspose2d, ConvTranspose3d,
    DeformConv2d, Error, Gpu, Involution2d, Linear, MaxPool2d, MaxPool3d, Mul, Padding, Profile, Result,
    SeparableConv2d, SeparableKernel, SeparableWeights, Softmax, Tensor, wgpu,
};

use crate::common::{gpu, integers, open, upload};

/// Panics unless the result is `Error::Invalid` for that operator and argument.
#[track_caller]
fn invalid<T: std::fmt::Debug>(result: Result<T>, op: &str, argument: &str) {
    match result {
        Err(Error::Invalid { op: o, argument: a, ref expected, ref got }) => {
            assert_eq!((o, a), (op, argument), "expected {expected}, got {got}");
            assert!(!expected.is_empty() && !got.is_empty());
        }
        other => panic!("{op}, {argument}: {other:?}"),
    }
}

/// Small outputs by options or channels whose products overflow 32 or 64 bits, on an adapter where no limit comes before.
#[test]
fn products_that_overflow_are_no_panics() {
    let profile = Profile { subgroup: Some(32), max_binding: 1 << 34, max_buffer: 1 << 34, ..Profile::baseline() };
    let software = Profile { class: AdapterClass::Cpu, ..profile.clone() };
    for profile in [profile, software, Profile::baseline()] {
        let far = Conv2d::new().border(Border::Replicate).padding([(1 << 29, (1 << 29) - 1); 2]).stride(1 << 29);
        assert_eq!(far.plan(&profile, &[1, 1, 1, 1], &[1, 1, 1, 1]).expect("far").output_shape(), [1, 1, 2, 2]);
        // Two rows and columns, each its own phase of as many as the dilation.
        let spread = Conv2d::new().padding(1 << 17).dilation(1 << 17);
        let plan = spread.plan(&profile, &[1, 1, 2, 2], &[1, 1, 3, 3]).expect("spread");
        assert_eq!((plan.kernel(), plan.output_shape()), ("depthwise", &[1, 1, 2, 2][..]));
        assert!(plan.to_string().ends_with(" x 1 workgroups"), "{plan}");
        let up = ConvTranspose3d::new().stride(1 << 29).padding([(0, 1 << 29); 3]);
        assert_eq!(up.plan(&profile, &[1, 1, 2, 2, 2], &[1; 5]).expect("up").output_shape(), [1; 5]);
        let pool = MaxPool3d::new(1 << 29).padding(1 << 28);
        assert_eq!(pool.plan(&profile, &[1; 5]).expect("pool").output_shape(), [1; 5]);
        // Channels by the width of a tile.
        for (x, w, groups) in [(1 << 29, 1 << 29, 1), (1 << 28, 1, 1 << 28)] {
            let kernel = if groups == 1 { 1 } else { 3 };
            let wide = Conv1d::new().groups(groups).padding(kernel / 2);
            let planned = wide.plan(&profile, &[1, x, 1], &[groups, w, kernel]);
            assert!(profile.max_binding < 1 << 30 || planned.is_ok(), "{planned:?}");
        }
    }
}

/// What a tensor is too large for, and the operator as the caller calls it.
#[test]
fn an_error_of_size_names_operator_and_limit() {
    let planned = SeparableConv2d::new().plan(&Profile::baseline(), &[1, 2, 1, 1 << 27], &[2, 1, 1, 1], &[1, 2, 1, 1]);
    assert!(planned.is_err_and(|error| error.to_string().starts_with("separable_conv2d: ")));
    // What lies between the two parts is over the largest buffer, which only the call itself asks for, or over the reach of indices.
    let gpu = gpu();
    let side = (gpu.profile().max_buffer.min(1 << 33) / 4).isqrt() as usize + 1;
    let padded = SeparableConv2d::new().kernel(SeparableKernel::Unfused).padding([(0, side - 1); 2]);
    let one = Tensor::zeros(&gpu, &[1; 4]).expect("zeros");
    let weights = SeparableWeights { depthwise: &one, depthwise_bias: None, pointwise: &one, pointwise_bias: None };
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let encoded = padded.encode(&mut encoder, &one, &weights).map(drop);
    for made in [padded.forward(&one, &weights).map(drop), encoded] {
        assert!(matches!(made, Err(Error::TooLarge { op: "separable_conv2d", argument: "output", .. })), "{made:?}");
    }
    let error = Conv1d::new().output_shape(&[1 << 20, 1 << 20, 1], &[1, 1 << 20, 1]).expect_err("too large");
    assert!(error.to_string().ends_with("over the adapter's reach of 32-bit indices of 8589934588"), "{error}");
}

/// Panics unless the result is an error of any kind: used where several arguments share the blame.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    assert!(matches!(result, Err(Error::Invalid { .. } | Error::TooLarge { .. })), "{what}: {result:?}");
}

const HUGE: [usize; 4] = [1 << 30, 1 << 31, 1 << 33, 1 << 62];

#[test]
fn zero_and_huge_options() {
    let (x, w) = ([1, 4, 9, 9], [4, 4, 3, 3]);
    invalid(Conv2d::new().stride(0).output_shape(&x, &w), "conv2d", "stride");
    invalid(Conv2d::new().dilation([1, 0]).output_shape(&x, &w), "conv2d", "dilation");
    invalid(Conv2d::new().groups(0).output_shape(&x, &w), "conv2d", "groups");
    invalid(Conv1d::new().stride(0).output_shape(&[1, 4, 9], &[4, 4, 3]), "conv1d", "stride");
    invalid(Conv3d::new().dilation(0).output_shape(&[1, 4, 9, 9, 9], &[4, 4, 3, 3, 3]), "conv3d", "dilation");
    for padding in [Padding::Same, Padding::SameLower, Padding::Full, Padding::Causal] {
        invalid(Conv2d::new().padding(padding).stride(0).output_shape(&x, &w), "conv2d", "stride");
    }
    for huge in HUGE {
        // A stride that is never taken is legal, whatever it is.
        assert_eq!(Conv2d::new().stride(huge).output_shape(&x, &w).expect("one window"), [1, 4, 1, 1]);
        refused(Conv2d::new().dilation(huge).output_shape(&x, &w), "dilation");
        assert!(
            Conv2d::new().dilation(huge).output_shape(&x, &[4, 4, 1, 1]).is_ok(),
            "a kernel of one has no dilation"
        );
        refused(Conv2d::new().groups(huge).output_shape(&x, &w), "groups");
        refused(Conv2d::new().padding(huge).output_shape(&x, &w), "padding");
        refused(Conv2d::new().padding([(0, huge), (0, 0)]).stride(huge).output_shape(&x, &w), "padding and stride");
        refused(Conv2d::new().padding(Padding::Full).dilation(huge).output_shape(&x, &w), "full");
        refused(Conv2d::new().padding(Padding::Same).stride(huge).dilation(huge).output_shape(&x, &w), "same");
        refused(Conv2d::new().output_shape(&x, &[4, 4, huge, 3]), "kernel");
        refused(Conv2d::new().output_shape(&[huge, 4, huge, 9], &w), "input");
        refused(ConvTranspose2d::new().stride(huge).output_shape(&x, &w), "transposed stride");
        refused(ConvTranspose2d::new().dilation(huge).output_shape(&x, &w), "transposed dilation");
        refused(ConvTranspose2d::new().padding(huge).output_shape(&x, &w), "transposed padding");
        refused(ConvTranspose2d::new().output_padding(huge).output_shape(&x, &w), "output padding");
        refused(ConvTranspose2d::new().groups(huge).output_shape(&x, &w), "transposed groups");
        refused(DeformConv2d::new().dilation(huge).output_shape(&x, &w), "deformable dilation");
        refused(DeformConv2d::new().padding(huge).output_shape(&x, &w), "deformable padding");
        refused(DeformConv2d::new().groups(huge).output_shape(&x, &w), "deformable groups");
        refused(DeformConv2d::new().offset_groups(huge).output_shape(&x, &w), "offset groups");
        let inv = Involution2d::new().kernel_size(3);
        refused(inv.clone().dilation(huge).output_shape(&x, &[1, 9, 7, 7]), "involution dilation");
        refused(inv.clone().padding(huge).output_shape(&x, &[1, 9, 7, 7]), "involution padding");
        refused(inv.clone().groups(huge).output_shape(&x, &[1, 9, 7, 7]), "involution groups");
        refused(Involution2d::new().kernel_size(huge).output_shape(&x, &[1, 9, 7, 7]), "involution kernel");
        refused(MaxPool2d::new(huge).output_shape(&x), "pool kernel");
        refused(MaxPool2d::new(2).padding(huge).output_shape(&x), "pool padding");
        refused(MaxPool2d::new(2).dilation(huge).output_shape(&x), "pool dilation");
    }
    for op in [
        DeformConv2d::new().stride(0),
        DeformConv2d::new().dilation(0),
        DeformConv2d::new().groups(0),
        DeformConv2d::new().offset_groups(0),
    ] {
        refused(op.output_shape(&x, &w), "deformable zero");
    }
    for op in [ConvTranspose2d::new().stride(0), ConvTranspose2d::new().dilation(0), ConvTranspose2d::new().groups(0)] {
        refused(op.output_shape(&x, &w), "transposed zero");
    }
    for op in [Involution2d::new().stride(0), Involution2d::new().dilation(0), Involution2d::new().groups(0)] {
        refused(op.kernel_size(3).output_shape(&x, &[1, 9, 7, 7]), "involution zero");
    }
    refused(MaxPool2d::new(0).output_shape(&x), "pool kernel 0");
    refused(AvgPool2d::new(2).stride(0).output_shape(&x), "pool stride 0");
}

#[test]
fn shapes_that_do_not_fit() {
    let x = [2, 6, 5, 5];
    invalid(Conv2d::new().groups(4).output_shape(&x, &[8, 1, 3, 3]), "conv2d", "groups");
    invalid(Conv2d::new().groups(2).output_shape(&x, &[7, 3, 3, 3]), "conv2d", "groups");
    invalid(Conv2d::new().output_shape(&x, &[8, 5, 3, 3]), "conv2d", "weight");
    invalid(Conv2d::new().output_shape(&x, &[8, 6, 3]), "conv2d", "weight");
    invalid(Conv2d::new().output_shape(&[6, 5, 5], &[8, 6, 3, 3]), "conv2d", "input");
    invalid(Conv2d::new().output_shape(&[], &[]), "conv2d", "input");
    invalid(Conv2d::new().output_shape(&[0, 6, 5, 5], &[8, 6, 3, 3]), "conv2d", "input");
    invalid(Conv2d::new().output_shape(&x, &[8, 6, 0, 3]), "conv2d", "weight");
    invalid(Conv2d::new().output_shape(&x, &[8, 6, 6, 3]), "conv2d", "kernel");
    invalid(Conv2d::new().padding(5).border(Border::Reflect).output_shape(&x, &[8, 6, 3, 3]), "conv2d", "padding");
    invalid(Conv2d::new().padding(6).border(Border::Circular).output_shape(&x, &[8, 6, 3, 3]), "conv2d", "padding");
    assert!(Conv2d::new().padding(6).border(Border::Replicate).output_shape(&x, &[8, 6, 3, 3]).is_ok());
    // At one side alone, and as far as it may go.
    for (border, most) in [(Border::Reflect, 4), (Border::Circular, 5)] {
        let padded = |start: usize, end: usize| {
            Conv2d::new().border(border).padding([(1, 1), (start, end)]).output_shape(&x, &[8, 6, 3, 3])
        };
        assert!(padded(most, 0).is_ok() && padded(0, most).is_ok(), "{border:?}");
        invalid(padded(most + 1, 0), "conv2d", "padding");
        invalid(padded(0, most + 1), "conv2d", "padding");
    }
    refused(ConvTranspose2d::new().output_shape(&x, &[5, 8, 3, 3]), "transposed weight");
    refused(
        ConvTranspose2d::new().output_padding(1).output_shape(&x, &[6, 8, 3, 3]),
        "output padding not below the stride",
    );
    refused(DeformConv2d::new().offset_groups(4).output_shape(&x, &[8, 6, 3, 3]), "offset groups that do not divide");
    refused(
        Involution2d::new().kernel_size(3).groups(4).output_shape(&x, &[2, 36, 3, 3]),
        "involution groups that do not divide",
    );
    refused(Involution2d::new().output_shape(&x, &[2, 9, 3, 3]), "involution without a kernel size");
    refused(Linear::new().output_shape(&[3, 7], &[4, 8]), "linear");
    refused(Softmax::new(4).output_shape(&x), "softmax axis");
    refused(Add::new().output_shape(&[2, 3], &[2, 4]), "add");
    refused(Mul::new().output_shape(&[2, 0], &[2, 0]), "mul");
}

/// Outputs, offsets and masks of which there are too many, made of arguments of which there are not, along either axis.
#[test]
fn what_follows_from_the_arguments_is_too_large() {
    let along = |axis: usize, [first, second, long]: [usize; 3]| {
        if axis == 2 { [first, second, long, 1] } else { [first, second, 1, long] }
    };
    for axis in [2, 3] {
        let (x, w) = (along(axis, [1, 1, 1 << 17]), along(axis, [1, 1, 1 << 16]));
        let offset = DeformConv2d::new().output_shape(&x, &w);
        assert!(matches!(offset, Err(Error::TooLarge { argument: "offset", .. })), "{offset:?}");
        let pads = if axis == 2 { [(1 << 28, 1 << 28), (0, 0)] } else { [(0, 0), (1 << 28, 1 << 28)] };
        let (x, extents) = (along(axis, [1, 4, 1 << 28]), along(axis, [1, 1, 3 << 28]));
        let output = Involution2d::new().kernel_size(1).padding(pads).output_shape(&x, &extents);
        assert!(matches!(output, Err(Error::TooLarge { argument: "output", .. })), "{output:?}");
    }
}

fn all_ops(
    gpu: &Gpu,
    bias: &Tensor,
    residual: &Tensor,
    x: &Tensor,
    w: &Tensor,
    out: Option<&Tensor>,
) -> Vec<(&'static str, Result<()>)> {
    let on = |shape: &[usize]| Tensor::from_array(gpu, &integers(shape, 5, 2)).expect("upload");
    let (offset, mask, kernel) = (on(&[1, 18, 6, 6]), on(&[1, 9, 6, 6]), on(&[1, 9, 6, 6]));
    let done = |y: Result<Tensor>| y.map(|_| ());
    let conv = Conv2d::new().padding(1).residual(residual);
    let transposed = ConvTranspose2d::new().padding(1).residual(residual);
    let deform = DeformConv2d::new().padding(1).residual(residual);
    let inv = Involution2d::new().kernel_size(3).padding(1).residual(residual);
    match out {
        None => vec![
            ("conv2d", done(conv.forward(x, w, Some(bias)))),
            ("conv_transpose2d", done(transposed.forward(x, w, Some(bias)))),
            ("deform_conv2d", done(deform.forward(x, &offset, w, Some(bias), Some(&mask)))),
            ("involution2d", done(inv.forward(x, &kernel, Some(bias)))),
        ],
        Some(out) => vec![
            ("conv2d", conv.forward_into(x, w, Some(bias), out)),
            ("conv_transpose2d", transposed.forward_into(x, w, Some(bias), out)),
            ("deform_conv2d", deform.forward_into(x, &offset, w, Some(bias), Some(&mask), out)),
            ("involution2d", inv.forward_into(x, &kernel, Some(bias), out)),
        ],
    }
}

/// Bias, residual and output of a wrong shape or rank, tensors of another `Gpu`, outputs that alias an argument: on every operator.
#[test]
fn arguments_of_every_operator() {
    let good = gpu();
    let on = |gpu: &Gpu, shape: &[usize]| Tensor::from_array(gpu, &integers(shape, 5, 2)).expect("upload");
    let x = on(&good, &[1, 4, 6, 6]);
    let w = on(&good, &[4, 4, 3, 3]);
    let (bias, residual, out) = (on(&good, &[4]), on(&good, &[1, 4, 6, 6]), on(&good, &[1, 4, 6, 6]));
    for (op, result) in all_ops(&good, &bias, &residual, &x, &w, Some(&out)) {
        assert!(result.is_ok(), "{op}: {result:?}");
    }
    for shape in [vec![5], vec![1, 4], vec![1]] {
        for (op, result) in all_ops(&good, &on(&good, &shape), &residual, &x, &w, None) {
            invalid(result, op, "bias");
        }
    }
    for shape in [vec![1, 4, 6, 5], vec![4, 6, 6], vec![1, 4, 1, 1]] {
        for (op, result) in all_ops(&good, &bias, &on(&good, &shape), &x, &w, None) {
            invalid(result, op, "residual");
        }
        for (op, result) in all_ops(&good, &bias, &residual, &x, &w, Some(&on(&good, &shape))) {
            invalid(result, op, "output");
        }
    }
    for aliased in [&x, &residual, &x.reshape(&[1, 4, 6, 6]).expect("same shape")] {
        for (op, result) in all_ops(&good, &bias, &residual, &x, &w, Some(aliased)) {
            invalid(result, op, "output");
        }
    }
    let other = open();
    for (op, result) in all_ops(&good, &on(&other, &[4]), &residual, &x, &w, None) {
        invalid(result, op, "bias");
    }
    for (op, result) in all_ops(&good, &bias, &on(&other, &[1, 4, 6, 6]), &x, &w, None) {
        invalid(result, op, "residual");
    }
    for (op, result) in all_ops(&good, &bias, &residual, &x, &w, Some(&on(&other, &[1, 4, 6, 6]))) {
        invalid(result, op, "output");
    }
    // After all these mistakes the operators still work.
    for (op, result) in all_ops(&good, &bias, &residual, &x, &w, None) {
        assert!(result.is_ok(), "{op}: {result:?}");
    }
    assert!(out.to_array().is_ok());
}

#[test]
fn offset_and_mask_of_a_wrong_shape() {
    let (x, w) = (upload(&integers(&[1, 4, 6, 6], 1, 2)), upload(&integers(&[4, 4, 3, 3], 2, 2)));
    let (offset, mask) = (upload(&integers(&[1, 18, 4, 4], 3, 1)), upload(&integers(&[1, 9, 4, 4], 3, 1)));
    let op = DeformConv2d::new();
    assert!(op.forward(&x, &offset, &w, None, Some(&mask)).is_ok());
    for shape in [vec![1, 17, 4, 4], vec![1, 18, 4, 5], vec![2, 18, 4, 4], vec![18, 4, 4]] {
        invalid(op.forward(&x, &upload(&integers(&shape, 3, 1)), &w, None, None), "deform_conv2d", "offset");
    }
    for shape in [vec![1, 18, 4, 4], vec![1, 9, 4, 3], vec![9, 4, 4]] {
        invalid(op.forward(&x, &offset, &w, None, Some(&upload(&integers(&shape, 3, 1)))), "deform_conv2d", "mask");
    }
}

#[test]
fn kernels_asked_for_that_cannot_take_the_problem() {
    let profile = gpu().profile().clone();
    let depthwise = Conv2d::new().kernel(ConvKernel::Depthwise);
    invalid(depthwise.plan(&profile, &[1, 4, 6, 6], &[4, 4, 3, 3]), "conv2d", "kernel");
    let pointwise = Conv2d::new().kernel(ConvKernel::Pointwise);
    invalid(pointwise.plan(&profile, &[1, 4, 6, 6], &[4, 4, 3, 3]), "conv2d", "kernel");
    let baseline = wgconv::Profile::baseline();
    let subgroup = Conv2d::new().kernel(ConvKernel::Subgroup);
    invalid(subgroup.plan(&baseline, &[1, 4, 6, 6], &[4, 4, 3, 3]), "conv2d", "kernel");
}

#[test]
fn arrays_and_adapters() {
    refused(Tensor::from_array(&gpu(), &ndarray::Array2::<f32>::zeros((0, 3))), "empty array");
    refused(Tensor::from_slice(&gpu(), &[2, 2], &[1.0; 3]), "too few values");
    refused(upload(&integers(&[2, 3], 1, 2)).reshape(&[4]), "reshape");
    let missing = Gpu::builder().adapter("no such adapter").build_blocking();
    assert!(matches!(&missing, Err(Error::NoAdapter { found, .. }) if !found.is_empty()), "{missing:?}");
    let limits = wgpu::Limits { max_buffer_size: u64::MAX, ..wgpu::Limits::default() };
    let greedy = Gpu::builder().adapter_from_env().limits(limits).build_blocking();
    assert!(matches!(greedy, Err(Error::NoDevice { .. })), "{greedy:?}");
}
