//! Every block against the reference composed in f64 from the same parameters, within a bound that is propagated along it.

mod cost;
mod dilated;
mod golden;
mod near;
mod parameters;

use ndarray::{Array2, ArrayD, Axis, arr2};
use wgconv::blocks::{
    Bottleneck, BottleneckConfig, ConvNorm, DeformConfig, DeformLayer, Inception7x7, InvertedResidual,
    InvolutionConfig, Middle, MobileNetV1Block, Separable, XceptionUnit, load_involution, two_groups,
};
use wgconv::reference::{ActivationKind, AvgPoolSpec, ConvSpec, DeformSpec, InvolutionSpec, avg_pool, conv};
use wgconv::{Activation, Conv2d, Error, Tensor, ndarray};

use crate::common::{gpu, reals, upload};
use near::{After, EPS, Near, PARAMS, get, layer, spec, wide};

fn input(shape: &[usize]) -> (Near, Tensor) {
    let x = reals(shape, 3);
    (Near::exact(&x), upload(&x))
}

#[test]
fn convolution_norm_activation() {
    for (shape, weight, stride, groups) in [([2, 3, 11, 9], [8, 3, 7, 7], 2, 1), ([1, 12, 6, 7], [9, 4, 3, 3], 1, 3)] {
        let (near, x) = input(&shape);
        let options = Conv2d::new().stride(stride).padding(1).groups(groups).activation(Activation::Relu);
        let block = ConvNorm::load(&gpu(), &PARAMS, ("c", "n"), &weight, options).expect("load");
        let want = layer(&near, ("c", "n"), &weight, &spec(stride, 1, 1, groups));
        want.relu().check("conv norm", &block.forward(&x).expect("forward"));
        let (residual, r) = input(want.y.shape());
        let got = block.forward_with_residual(&x, &r).expect("forward");
        want.add(&residual).relu().check("with residual", &got);
    }
}

#[test]
fn alexnets_two_groups() {
    let (near, x) = input(&[1, 6, 9, 7]);
    let block = two_groups(&gpu(), &PARAMS, "conv2", [10, 6], 5).expect("load");
    let want = near.conv(&get("conv2.weight", &[10, 3, 5, 5]), After::Bias("conv2"), &spec(1, 1, 2, 2)).relu();
    want.check("two groups", &block.forward(&x).expect("forward"));
    assert!(matches!(two_groups(&gpu(), &PARAMS, "conv2", [10, 5], 5), Err(Error::Invalid { argument: "groups", .. })));
}

/// 1x1, the middle, 1x1 and the shortcut.
fn bottleneck(x: &Near, name: &str, config: &BottleneckConfig, middle: impl Fn(&Near) -> Near) -> Near {
    let BottleneckConfig { in_channels: c, width, out_channels: o, stride, .. } = *config;
    let named = |conv: &str, norm: &str| (format!("{name}.{conv}"), format!("{name}.{norm}"));
    let pointwise = |x: &Near, names: (String, String), shape: [usize; 2], stride: usize| {
        layer(x, (&names.0, &names.1), &[shape[0], shape[1], 1, 1], &spec(stride, 1, 0, 1))
    };
    let reduced = pointwise(x, named("conv1", "bn1"), [width, c], 1).relu();
    let expanded = pointwise(&middle(&reduced), named("conv3", "bn3"), [o, width], 1);
    let shortcut = match stride == 1 && c == o {
        true => x.clone(),
        false => pointwise(x, named("downsample.0", "downsample.1"), [o, c], stride),
    };
    expanded.add(&shortcut).relu()
}

#[test]
fn resnet_and_resnext_bottlenecks() {
    for (shape, config) in [
        ([2, 16, 9, 7], BottleneckConfig::new(16, 8, 16)),
        ([1, 10, 8, 9], BottleneckConfig { stride: 2, ..BottleneckConfig::new(10, 5, 14) }),
        ([1, 8, 7, 10], BottleneckConfig { groups: 4, ..BottleneckConfig::new(8, 12, 16) }),
        ([1, 8, 9, 10], BottleneckConfig { dilation: 2, ..BottleneckConfig::new(8, 4, 8) }),
    ] {
        let (near, x) = input(&shape);
        let block = Bottleneck::load(&gpu(), &PARAMS, "layer1.0", config).expect("load");
        let BottleneckConfig { width, groups, dilation, stride, .. } = config;
        let want = bottleneck(&near, "layer1.0", &config, |x| {
            let names = ("layer1.0.conv2", "layer1.0.bn2");
            layer(x, names, &[width, width / groups, 3, 3], &spec(stride, dilation, dilation, groups)).relu()
        });
        want.check(&format!("{config:?}"), &block.forward(&x).expect("forward"));
    }
}

/// The layer that predicts offsets and mask by one convolution, with its batch norm.
fn deform(x: &Near, (conv, norm): (&str, &str), config: &DeformConfig) -> Near {
    let DeformConfig { in_channels: c, out_channels, kernel: k, stride, dilation, groups, offset_groups, .. } = *config;
    let (pad, taps) = (dilation * (k - 1) / 2, offset_groups * k * k);
    let name = format!("{conv}.conv_offset");
    let channels = if config.modulated { 3 } else { 2 } * taps;
    let weight = get(&format!("{name}.weight"), &[channels, c, k, k]);
    let predicted = x.conv(&weight, After::Bias(&name), &spec(stride, dilation, pad, 1));
    let part = |from: usize, to: usize| predicted.both(|a| a.slice_axis(Axis(1), (from..to).into()).to_owned());
    let offset = part(0, 2 * taps);
    let mask = config.modulated.then(|| part(2 * taps, channels).activate(ActivationKind::Sigmoid));
    let spec =
        DeformSpec { stride: [stride; 2], dilation: [dilation; 2], pads: [(pad, pad); 2], groups, offset_groups };
    x.deform(&offset, mask.as_ref(), &get(&format!("{conv}.weight"), &[out_channels, c / groups, k, k]), norm, &spec)
}

#[test]
fn deformable_layers() {
    let new = DeformConfig::new;
    for (shape, config) in [
        ([2, 6, 7, 9], new(6, 5)),
        ([1, 8, 9, 8], DeformConfig { modulated: false, stride: 2, groups: 2, offset_groups: 4, ..new(8, 6) }),
        ([1, 4, 9, 11], DeformConfig { dilation: 2, offset_groups: 2, activation: Activation::Relu, ..new(4, 3) }),
    ] {
        let (near, x) = input(&shape);
        let block = DeformLayer::load(&gpu(), &PARAMS, ("dcn", Some("bn")), config).expect("load");
        let want = deform(&near, ("dcn", "bn"), &config);
        let want = if config.activation == Activation::Relu { want.relu() } else { want };
        want.check(&format!("{config:?}"), &block.forward(&x).expect("forward"));
    }
}

#[test]
fn deformable_bottlenecks() {
    for (modulated, offset_groups, stride) in [(true, 1, 1), (false, 2, 2)] {
        let (near, x) = input(&[1, 12, 8, 9]);
        let middle = Middle::Deform { modulated, offset_groups };
        let config = BottleneckConfig { stride, middle, ..BottleneckConfig::new(12, 4, 12) };
        let block = Bottleneck::load(&gpu(), &PARAMS, "b", config).expect("load");
        let inner = DeformConfig { modulated, offset_groups, stride, ..DeformConfig::new(4, 4) };
        let want = bottleneck(&near, "b", &config, |x| deform(x, ("b.conv2", "b.bn2"), &inner).relu());
        want.check(&format!("{config:?}"), &block.forward(&x).expect("forward"));
    }
}

/// The kernels from the pooled input, then the involution.
fn involution(x: &Near, name: &str, config: &InvolutionConfig) -> Near {
    let InvolutionConfig { channels: c, kernel: k, stride, dilation, group_channels, reduction } = *config;
    let pool = |x: &ArrayD<f64>| {
        let spec = AvgPoolSpec { ceil_mode: true, count_include_pad: false, ..AvgPoolSpec::new(&[stride; 2]) };
        avg_pool(x.view(), &spec).expect("reference")
    };
    let pooled = if stride > 1 { x.mean(stride * stride, pool) } else { x.clone() };
    let (reduced, groups) = (c / reduction, c / group_channels);
    let [conv1, norm, conv2] = ["conv1.conv", "conv1.bn", "conv2.conv"].map(|part| format!("{name}.{part}"));
    let hidden = layer(&pooled, (&conv1, &norm), &[reduced, c, 1, 1], &spec(1, 1, 0, 1)).relu();
    let span = get(&format!("{conv2}.weight"), &[groups * k * k, reduced, 1, 1]);
    let pads = [(dilation * (k - 1) / 2, dilation * (k - 1) / 2); 2];
    let inv = InvolutionSpec { kernel: [k; 2], stride: [stride; 2], dilation: [dilation; 2], pads, groups };
    x.involution(&hidden.conv(&span, After::Bias(&conv2), &spec(1, 1, 0, 1)), &inv)
}

#[test]
fn involution_layer_and_rednets_bottleneck() {
    let config = InvolutionConfig { group_channels: 4, ..InvolutionConfig::new(12) };
    let (near, x) = input(&[2, 12, 9, 7]);
    let block = load_involution(&gpu(), &PARAMS, "inv", config).expect("load");
    involution(&near, "inv", &config).check("layer", &block.forward(&x).expect("forward"));
    for (stride, kernel) in [(1, 7), (2, 3)] {
        let (near, x) = input(&[1, 10, 9, 8]);
        let middle = Middle::Involution { kernel, group_channels: 4 };
        let config = BottleneckConfig { stride, middle, ..BottleneckConfig::new(10, 8, 10) };
        let block = Bottleneck::load(&gpu(), &PARAMS, "red", config).expect("load");
        let inner = InvolutionConfig { kernel, stride, group_channels: 4, ..InvolutionConfig::new(8) };
        let want = bottleneck(&near, "red", &config, |x| {
            // The batch norm by itself: a 1x1 of ones in groups.
            let scaled = involution(x, "red.conv2", &inner);
            let each = ConvSpec { groups: 8, ..ConvSpec::new(2) };
            scaled.conv(&ArrayD::ones(&[8, 1, 1, 1][..]), After::Norm("red.bn2", EPS), &each).relu()
        });
        want.check(&format!("{config:?}"), &block.forward(&x).expect("forward"));
    }
}

#[test]
fn depthwise_separable_blocks() {
    let (near, x) = input(&[2, 6, 9, 7]);
    for stride in [1, 2] {
        let block = MobileNetV1Block::load(&gpu(), &PARAMS, "v1", [6, 10], stride).expect("load");
        let hidden = layer(&near, ("v1.conv_dw", "v1.bn1"), &[6, 1, 3, 3], &spec(stride, 1, 1, 6)).relu();
        let want = layer(&hidden, ("v1.conv_pw", "v1.bn2"), &[10, 6, 1, 1], &spec(1, 1, 0, 1)).relu();
        want.check("MobileNetV1", &block.forward(&x).expect("forward"));
    }
    for (c_out, stride, expansion) in [(6, 1, 6), (7, 2, 3), (6, 1, 1)] {
        let block = InvertedResidual::load(&gpu(), &PARAMS, "v2", [6, c_out], (stride, expansion)).expect("load");
        let (hidden, relu6) = (6 * expansion, |x: Near| x.activate(ActivationKind::Relu6));
        let (expanded, rest) = match expansion {
            1 => (near.clone(), [["v2.conv.0.0", "v2.conv.0.1"], ["v2.conv.1", "v2.conv.2"]]),
            _ => {
                let names = ("v2.conv.0.0", "v2.conv.0.1");
                let y = relu6(layer(&near, names, &[hidden, 6, 1, 1], &spec(1, 1, 0, 1)));
                (y, [["v2.conv.1.0", "v2.conv.1.1"], ["v2.conv.2", "v2.conv.3"]])
            }
        };
        let [[dw, dw_norm], [project, norm]] = rest;
        let spatial = relu6(layer(&expanded, (dw, dw_norm), &[hidden, 1, 3, 3], &spec(stride, 1, 1, hidden)));
        let want = layer(&spatial, (project, norm), &[c_out, hidden, 1, 1], &spec(1, 1, 0, 1));
        let want = if stride == 1 && c_out == 6 { want.add(&near) } else { want };
        want.check(&format!("MobileNetV2 {c_out} {stride} {expansion}"), &block.forward(&x).expect("forward"));
    }
    for relu in [true, false] {
        let block = XceptionUnit::load(&gpu(), &PARAMS, ("x.1", "x.2"), [6, 9], relu).expect("load");
        let first = if relu { near.relu() } else { near.clone() };
        let spatial = first.conv(&get("x.1.conv1.weight", &[6, 1, 3, 3]), After::Nothing, &spec(1, 1, 1, 6));
        let want = layer(&spatial, ("x.1.pointwise", "x.2"), &[9, 6, 1, 1], &spec(1, 1, 0, 1));
        want.check("Xception", &block.forward(&x).expect("forward"));
    }
}

#[test]
fn inceptions_row_and_column() {
    let (near, x) = input(&[1, 6, 9, 11]);
    let block = Inception7x7::load(&gpu(), &PARAMS, "branch7x7", [6, 5, 7]).expect("load");
    let mut want = near;
    for (i, shape) in [[5, 6, 1, 1], [5, 5, 1, 7], [7, 5, 7, 1]].into_iter().enumerate() {
        let name = format!("branch7x7_{}", i + 1);
        let pads = vec![(shape[2] / 2, shape[2] / 2), (shape[3] / 2, shape[3] / 2)];
        let norm = format!("{name}.bn");
        let weight = get(&format!("{name}.conv.weight"), &shape);
        want = want.conv(&weight, After::Norm(&norm, 1e-3), &ConvSpec { pads, ..ConvSpec::new(2) }).relu();
    }
    want.check("7x1 of 1x7", &block.forward(&x).expect("forward"));
}

#[test]
fn separable_kernels() {
    let sobel = arr2(&[[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]);
    let gauss = Array2::from_shape_fn((5, 7), |(y, x)| {
        (-((y as f32 - 2.0).powi(2) / 2.0 + (x as f32 - 3.0).powi(2) / 3.0)).exp()
    });
    let disc =
        Array2::from_shape_fn((5, 5), |(y, x)| f32::from(u8::from((y as f32 - 2.0).hypot(x as f32 - 2.0) < 2.3)));
    for (kernel, rank) in [(&sobel, 1), (&gauss, 1), (&disc, 2)] {
        let all = Separable::factor(kernel.view()).expect("factor");
        assert_eq!(all.rank(), rank);
        // Column and row are rounded once each, and a Gaussian's f32 entries are no exact product either.
        let most = kernel.fold(0.0, |a: f64, b| a.max(f64::from(b.abs())));
        assert!(
            all.largest_error() < 4.0 * f64::from(f32::EPSILON) * most && all.frobenius_error() >= all.largest_error()
        );
        for separable in [all.clone(), all.truncated(1).expect("truncate")] {
            let (near, x) = input(&[2, 3, 9, 8]);
            let got = separable.layer(&gpu(), 3).expect("layer").forward(&x).expect("forward");
            // The reference is the 2d convolution with the sum; the bound that of the terms' two passes.
            let [kh, kw] = [kernel.dim().0, kernel.dim().1];
            let pads = vec![(kh / 2, kh / 2), (kw / 2, kw / 2)];
            let depthwise = |pads| ConvSpec { pads, groups: 3, ..ConvSpec::new(2) };
            let repeated = |w: Array2<f64>| ArrayD::from_shape_fn(&[3, 1, kh, kw][..], |i| w[[i[2], i[3]]]);
            let y = conv(near.y.view(), repeated(separable.sum()).view(), None, &depthwise(pads.clone()))
                .expect("reference");
            let mut sum: Option<Near> = None;
            for (column, row) in separable.terms() {
                let (column, row) = (
                    ArrayD::from_shape_fn(&[3, 1, kh, 1][..], |i| column[i[2]]),
                    ArrayD::from_shape_fn(&[3, 1, 1, kw][..], |i| row[i[3]]),
                );
                let vertical = near.conv(&column, After::Nothing, &depthwise(vec![pads[0], (0, 0)]));
                let term = vertical.conv(&row, After::Nothing, &depthwise(vec![(0, 0), pads[1]]));
                sum = Some(sum.map_or(term.clone(), |sum| term.add(&sum)));
            }
            Near { y, e: sum.expect("a term").e }.check("separable", &got);
        }
    }
    // Eckart and Young: what is left of the disc is its second singular value, from the trace and the determinant of its two
    // different rows' Gram matrix, and no other single term comes nearer.
    let best = Separable::factor(disc.view()).expect("factor").truncated(1).expect("truncate");
    let gram = wide(&disc.clone().into_dyn()).into_dimensionality::<ndarray::Ix2>().expect("a matrix");
    let gram = gram.dot(&gram.t());
    let (trace, squares) = (gram.diag().sum(), gram.mapv(|v| v * v).sum());
    // Two eigenvalues a, b of the Gram matrix: a + b = trace, a*a + b*b = squares.
    let second = (trace - (2.0 * squares - trace * trace).sqrt()) / 2.0;
    assert!((best.frobenius_error() - second.sqrt()).abs() < 1e-5, "{} {}", best.frobenius_error(), second.sqrt());
    for wrong in [Array2::zeros((3, 3)), Array2::zeros((0, 3)), Array2::from_elem((2, 2), f32::NAN)] {
        assert!(matches!(
            Separable::factor(wrong.view()),
            Err(Error::Invalid { op: "separable", argument: "kernel", .. })
        ));
    }
    assert!(matches!(best.truncated(0), Err(Error::Invalid { argument: "rank", .. })));
}
