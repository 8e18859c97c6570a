//! Blocks of segmentation, audio, points and attention.

use ndarray::{Array4, ArrayD, Axis};
use wgconv::blocks::{
    Aspp, AsppConfig, Duc, FcnUpsample, HDC_1_2_3, HDC_1_2_5, Hdc, LocalAttention, LocalAttentionConfig, PointNet, Rfb,
    RfbConfig, WaveNet, WaveNetConfig, WaveNetOutput, bilinear_weight,
};
use wgconv::reference::{
    ActivationKind, ConvSpec, ConvTransposeSpec, InvolutionSpec, conv_transpose, global_avg_pool, pixel_shuffle,
    upsample_nearest,
};
use wgconv::{Concat, Error, Involution2d, Narrow, Tensor, ndarray};

use super::input;
use super::near::{After, Near, PARAMS, U, get, layer, spec, wide};
use crate::common::gpu;

#[test]
fn aspp() {
    for rates in [vec![6, 12, 18], vec![2]] {
        let (near, x) = input(&[2, 6, 9, 11]);
        let config = AsppConfig { rates: rates.clone(), ..AsppConfig::new(6, 5) };
        let block = Aspp::load(&gpu(), &PARAMS, "classifier.0", &config).expect("load");
        let named = |part: String| format!("classifier.0.{part}");
        let branch = |x: &Near, i: usize, first: usize, kernel: usize, rate: usize| {
            let (conv, norm) = (named(format!("convs.{i}.{first}")), named(format!("convs.{i}.{}", first + 1)));
            layer(x, (&conv, &norm), &[5, 6, kernel, kernel], &spec(1, rate, rate * (kernel / 2), 1)).relu()
        };
        let mut parts = vec![branch(&near, 0, 0, 1, 1)];
        parts.extend(rates.iter().zip(1..).map(|(&rate, i)| branch(&near, i, 0, 3, rate)));
        let mean = near.mean(99, |x| global_avg_pool(x.view()).expect("reference"));
        let image = branch(&mean, rates.len() + 1, 1, 1, 1);
        parts.push(image.both(|x| upsample_nearest(x.view(), [9, 11]).expect("reference")));
        let joined = Near::concat(&parts.iter().collect::<Vec<_>>(), 1);
        let names = (named("project.0".into()), named("project.1".into()));
        let want = layer(&joined, (&names.0, &names.1), &[5, 5 * parts.len(), 1, 1], &spec(1, 1, 0, 1)).relu();
        want.check(&format!("{rates:?}"), &block.forward(&x).expect("forward"));
    }
}

#[test]
fn hybrid_dilation_and_dense_upsampling() {
    for rates in [HDC_1_2_5, HDC_1_2_3] {
        let (near, x) = input(&[1, 4, 13, 9]);
        let block = Hdc::load(&gpu(), &PARAMS, "hdc", 4, &rates).expect("load");
        let mut want = near;
        for (i, rate) in rates.into_iter().enumerate() {
            let names = (format!("hdc.conv{}", i + 1), format!("hdc.bn{}", i + 1));
            want = layer(&want, (&names.0, &names.1), &[4, 4, 3, 3], &spec(1, rate, rate, 1)).relu();
        }
        want.check(&format!("{rates:?}"), &block.forward(&x).expect("forward"));
    }
    let (near, x) = input(&[2, 5, 7, 3]);
    let block = Duc::load(&gpu(), &PARAMS, "duc", [5, 2], 3).expect("load");
    let logits = near.conv(&get("duc.conv.weight", &[18, 5, 3, 3]), After::Bias("duc.conv"), &spec(1, 1, 1, 1));
    let want = logits.both(|x| pixel_shuffle(x.view(), 3).expect("reference"));
    want.check("duc", &block.forward(&x).expect("forward"));
    assert!(matches!(Hdc::load(&gpu(), &PARAMS, "", 4, &[]), Err(Error::Invalid { argument: "rates", .. })));
}

#[test]
fn receptive_field_block() {
    for (stride, visual) in [(1, 1), (2, 2)] {
        let (near, x) = input(&[1, 16, 11, 9]);
        let config = RfbConfig { stride, visual, ..RfbConfig::new(16, 12) };
        let block = Rfb::load(&gpu(), &PARAMS, "", config).expect("load");
        // Each layer: channels out, in, kernel, stride, dilation; the last without ReLU. m = 2.
        let branches = [
            vec![[4, 16, 1, stride, 1], [4, 4, 3, 1, visual]],
            vec![[2, 16, 1, 1, 1], [4, 2, 3, stride, 1], [4, 4, 3, 1, visual + 1]],
            vec![[2, 16, 1, 1, 1], [3, 2, 3, 1, 1], [4, 3, 3, stride, 1], [4, 4, 3, 1, 2 * visual + 1]],
        ];
        let run = |(b, layers): (usize, &Vec<[usize; 5]>)| {
            let mut x = near.clone();
            for (i, &[o, c, k, stride, dilation]) in layers.iter().enumerate() {
                let names = (format!("branch{b}.{i}.conv"), format!("branch{b}.{i}.bn"));
                x = layer(&x, (&names.0, &names.1), &[o, c, k, k], &spec(stride, dilation, k / 2 * dilation, 1));
                x = if i + 1 < layers.len() { x.relu() } else { x };
            }
            x
        };
        let parts: Vec<Near> = branches.iter().enumerate().map(run).collect();
        let joined = Near::concat(&parts.iter().collect::<Vec<_>>(), 1);
        let joined = layer(&joined, ("ConvLinear.conv", "ConvLinear.bn"), &[12, 12, 1, 1], &spec(1, 1, 0, 1));
        // The scale is in weight and bias: one more rounding of each, as of the factor itself.
        let scaled = Near { e: &joined.e * 0.1 + joined.y.mapv(f64::abs) * U, y: &joined.y * f64::from(0.1f32) };
        let shortcut = layer(&near, ("shortcut.conv", "shortcut.bn"), &[12, 16, 1, 1], &spec(stride, 1, 0, 1));
        scaled.add(&shortcut).relu().check(&format!("{config:?}"), &block.forward(&x).expect("forward"));
    }
}

/// Output and skip of the stack.
fn wavenet(x: &Near, config: &WaveNetConfig) -> [Near; 2] {
    let WaveNetConfig { channels: c, skip_channels: s, layers, kernel } = *config;
    let (mut x, mut skip) = (x.clone(), None::<Near>);
    for i in 0..layers {
        let run = |x: &Near, part: &str, shape: [usize; 3], dilation: usize| {
            let name = format!("{part}_convs.{i}");
            let pads = vec![((shape[2] - 1) * dilation, 0)];
            let spec = ConvSpec { dilation: vec![dilation], pads, ..ConvSpec::new(1) };
            x.conv(&get(&format!("{name}.weight"), &shape), After::Bias(&name), &spec)
        };
        let filter = run(&x, "filter", [c, c, kernel], 1 << i).activate(ActivationKind::Tanh);
        let gate = run(&x, "gate", [c, c, kernel], 1 << i).activate(ActivationKind::Sigmoid);
        let product = filter.mul(&gate);
        x = run(&product, "residual", [c, c, 1], 1).add(&x);
        let own = run(&product, "skip", [s, c, 1], 1);
        skip = Some(skip.map_or(own.clone(), |skip| own.add(&skip)));
    }
    [x, skip.expect("a layer")]
}

#[test]
fn wavenet_at_once_and_in_pieces() {
    for config in [
        WaveNetConfig { layers: 4, ..WaveNetConfig::new(6, 9) },
        WaveNetConfig { layers: 3, kernel: 3, ..WaveNetConfig::new(4, 8) },
    ] {
        let (near, x) = input(&[2, config.channels, 75]);
        let net = WaveNet::load(&gpu(), &PARAMS, "", config).expect("load");
        let [output, skip] = wavenet(&near, &config);
        let check = |what: &str, got: &WaveNetOutput| {
            output.check(what, &got.output);
            skip.check(what, &got.skip);
        };
        check("at once", &net.forward(&x).expect("forward"));
        // Pieces shorter and longer than what a layer remembers, down to one sample.
        for lengths in [&[1, 2, 30, 1, 41][..], &[25, 25, 25], &[75]] {
            let (mut state, mut at, mut outputs) = (net.state(&gpu(), 2).expect("state"), 0, Vec::new());
            for &length in lengths {
                let piece = Narrow::new(2, at, length).forward(&x).expect("piece");
                outputs.push(net.forward_piece(&mut state, &piece).expect("forward"));
                at += length;
            }
            let join = |of: fn(&WaveNetOutput) -> &Tensor| {
                Concat::new(2).forward(&outputs.iter().map(of).collect::<Vec<_>>()).expect("concat")
            };
            check(&format!("{lengths:?}"), &WaveNetOutput { output: join(|y| &y.output), skip: join(|y| &y.skip) });
        }
    }
    let net = |layers| WaveNet::load(&gpu(), &PARAMS, "", WaveNetConfig { layers, ..WaveNetConfig::new(2, 2) });
    assert!(matches!(net(0), Err(Error::Invalid { op: "wavenet", argument: "layers", .. })));
    let mut state = net(2).expect("load").state(&gpu(), 1).expect("state");
    let (_, x) = input(&[1, 2, 5]);
    let error = net(3).expect("load").forward_piece(&mut state, &x).expect_err("another network's state");
    assert!(matches!(error, Error::Invalid { op: "wavenet", argument: "state", .. }), "{error}");
    let (_, x) = input(&[2, 2, 5]);
    assert!(matches!(net(2).expect("load").forward_piece(&mut state, &x), Err(Error::Invalid { op: "concat", .. })));
}

#[test]
fn pointnet_forgets_the_order() {
    let (near, x) = input(&[2, 3, 37]);
    let block = PointNet::load(&gpu(), &PARAMS, "feat", &[3, 8, 13]).expect("load");
    let first = layer(&near, ("feat.conv1", "feat.bn1"), &[8, 3, 1], &ConvSpec::new(1)).relu();
    let second = layer(&first, ("feat.conv2", "feat.bn2"), &[13, 8, 1], &ConvSpec::new(1)).relu();
    // Maxima differ by no more than their greatest elements do.
    let want = second.both(|x| x.fold_axis(Axis(2), f64::MIN, |a, b| a.max(*b)));
    want.check("pointnet", &block.forward(&x).expect("forward"));
    let reversed: Vec<Tensor> = (0..37).rev().map(|i| Narrow::new(2, i, 1).forward(&x).expect("point")).collect();
    let reversed = Concat::new(2).forward(&reversed.iter().collect::<Vec<_>>()).expect("concat");
    want.check("reversed", &block.forward(&reversed).expect("forward"));
    assert!(matches!(PointNet::load(&gpu(), &PARAMS, "", &[3]), Err(Error::Invalid { argument: "channels", .. })));
}

#[test]
fn fcn_upsampling() {
    for factor in [1, 2, 3, 8] {
        let (near, x) = input(&[2, 3, 5, 4]);
        let (k, pad) = (2 * factor - factor % 2, factor / 2);
        let spec = |groups| ConvTransposeSpec {
            stride: vec![factor; 2],
            pads: vec![(pad, pad); 2],
            groups,
            ..ConvTransposeSpec::new(2)
        };
        let run = |w: &ArrayD<f32>, groups: usize| {
            let run = |x: ArrayD<f64>, w: ArrayD<f64>| {
                conv_transpose(x.view(), w.view(), None, &spec(groups)).expect("reference")
            };
            let absolute = run(near.y.mapv(f64::abs), wide(w).mapv(f64::abs));
            // At most 2x2 taps a channel, each rounded once a product and an addition.
            Near { y: run(near.y.clone(), wide(w)), e: absolute * (4.0 * 3.0 * U * 1.001) + 1e-30 }
        };
        let bilinear = FcnUpsample::bilinear(&gpu(), 3, factor).expect("load").forward(&x).expect("forward");
        assert_eq!(bilinear.shape(), [2, 3, 5 * factor, 4 * factor]);
        run(&bilinear_weight(3, factor).expect("weight"), 3).check("bilinear", &bilinear);
        let learned = FcnUpsample::load(&gpu(), &PARAMS, "up", 3, factor).expect("load");
        run(&get("up.weight", &[3, 3, k, k]), 1).check("learned", &learned.forward(&x).expect("forward"));
        // Inside, an image that rises by 1 a pixel rises by 1/factor.
        let ramp = Array4::from_shape_fn((1, 3, 5, 4), |(_, _, y, x)| (y + 2 * x) as f32);
        let up = FcnUpsample::bilinear(&gpu(), 3, factor).expect("load").forward(&crate::common::upload(&ramp));
        let up = up.expect("forward").to_array().expect("read");
        let centre = |i: usize| (i as f64 + 0.5) / factor as f64 - 0.5;
        for (index, &value) in up.indexed_iter() {
            let (y, x) = (centre(index[2]), centre(index[3]));
            if (0.0..=4.0).contains(&y) && (0.0..=3.0).contains(&x) {
                assert!((f64::from(value) - y - 2.0 * x).abs() < 1e-5, "{factor} {:?} {value}", (index[2], index[3]));
            }
        }
    }
    assert!(matches!(bilinear_weight(1, 0), Err(Error::Invalid { argument: "factor", .. })));
}

#[test]
fn local_attention_is_an_involution() {
    for (shape, channels, heads, k) in [([2, 5, 7, 6], 6, 3, 3), ([1, 4, 6, 9], 4, 1, 5)] {
        let (near, x) = input(&shape);
        let [n, c_in, h, w] = shape;
        let config = LocalAttentionConfig { in_channels: c_in, channels, heads, kernel: k };
        let block = LocalAttention::load(&gpu(), &PARAMS, "att", config).expect("load");
        let project = |name: &str| {
            near.conv(&get(&format!("att.{name}.weight"), &[channels, c_in, 1, 1]), After::Nothing, &spec(1, 1, 0, 1))
        };
        let [query, key, value] = ["query", "key", "value"].map(project);
        let (d, r) = (channels / heads, k / 2);
        // The definition, tap by tap: beyond the image keys and values are zero.
        let at =
            |image: &ArrayD<f64>, n: usize, c: usize, y: usize, x: usize| match (y.checked_sub(r), x.checked_sub(r)) {
                (Some(y), Some(x)) if y < h && x < w => image[[n, c, y, x]],
                _ => 0.0,
            };
        let scale = 1.0 / (d as f64).sqrt();
        let head = |i: &ndarray::IxDyn, of: &dyn Fn(usize) -> f64| (i[1] * d..(i[1] + 1) * d).map(of).sum::<f64>();
        let logits = ArrayD::from_shape_fn(&[n, heads, k * k, h, w][..], |i| {
            let (y, x) = (i[3] + i[2] / k, i[4] + i[2] % k);
            scale * head(&i, &|c| query.y[[i[0], c, i[3], i[4]]] * at(&key.y, i[0], c, y, x))
        });
        // As `Near::mul`, each product rounded once and the sum d + 1 times, its factor among them.
        let e = ArrayD::from_shape_fn(logits.raw_dim(), |i| {
            let (y, x) = (i[3] + i[2] / k, i[4] + i[2] % k);
            scale
                * head(&i, &|c| {
                    let q = [i[0], c, i[3], i[4]];
                    let (a, ea, b, eb) =
                        (query.y[q].abs(), query.e[q], at(&key.y, i[0], c, y, x).abs(), at(&key.e, i[0], c, y, x));
                    1.001 * (a * eb + ea * (b + eb) + (d + 3) as f64 * U * (a + ea) * (b + eb))
                })
        });
        let weights = Near { y: logits, e }.softmax(2);
        let weights = weights.both(|w| w.to_shape(&[n, heads, k, k, h, shape[3]][..]).expect("taps").to_owned());
        let attention = block.weights(&x).expect("weights");
        weights.check("weights", &attention);
        let inv = InvolutionSpec { pads: [(r, r); 2], groups: heads, ..InvolutionSpec::new([k; 2]) };
        let mut want = value.involution(&weights, &inv);
        // Not by the involution's reference either.
        want.y = ArrayD::from_shape_fn(want.y.raw_dim(), |i| {
            let tap = |t: usize| {
                weights.y[[i[0], i[1] / d, t / k, t % k, i[2], i[3]]]
                    * at(&value.y, i[0], i[1], i[2] + t / k, i[3] + t % k)
            };
            (0..k * k).map(tap).sum()
        });
        let got = block.forward(&x).expect("forward");
        want.check("attention", &got);
        // The same operator with the same weights, given by hand.
        let values = wgconv::Conv2d::new().forward(
            &x,
            &crate::common::upload(&get("att.value.weight", &[channels, c_in, 1, 1])),
            None,
        );
        let involution = Involution2d::new().groups(heads).padding(r);
        let by_hand = involution.forward(&values.expect("values"), &attention, None).expect("involution");
        want.check("by hand", &by_hand);
        assert_eq!(by_hand.to_array().expect("read"), got.to_array().expect("read"));
    }
    let config = LocalAttentionConfig { in_channels: 4, channels: 4, heads: 3, kernel: 3 };
    let wrong = |config| LocalAttention::load(&gpu(), &PARAMS, "", config).expect_err("wrong");
    assert!(matches!(wrong(config), Error::Invalid { argument: "heads", .. }));
    assert!(matches!(
        wrong(LocalAttentionConfig { heads: 2, kernel: 4, ..config }),
        Error::Invalid { argument: "kernel", .. }
    ));
}
