//! The worked examples of the source texts, and numbers at the ends of their ranges.

use ndarray::{Array2, arr2};
use serde_json::Value;

use super::cost::{self, Cost, Options};
use super::*;
use crate::error::{Error, Result};

const PLAIN: fn() -> Options<2> = Options::new;

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("{key} of {row}"))
}

/// Our answer to a row of the worked examples.
fn answer(id: &str) -> u64 {
    let padded = PLAIN().padding(1);
    let of = |input: &[usize], weight: &[usize], options: &Options<2>| cost::conv(input, weight, options).unwrap();
    let small = |weight: &[usize], groups| of(&[1, 64, 8, 8], weight, &padded.groups(groups));
    let (x, wide, photo) = ([1, 6, 64, 64], [1, 256, 14, 14], [1, 3, 12, 12]);
    let separable = || cost::separable(&x, &[6, 1, 3, 3], &[3, 6, 1, 1], &padded).unwrap();
    let bottleneck = || -> Cost {
        let (narrow, options) = ([1, 64, 14, 14], PLAIN());
        let reduce = of(&wide, &[64, 256, 1, 1], &options);
        [reduce, of(&narrow, &[64, 64, 3, 3], &padded), of(&narrow, &[256, 64, 1, 1], &options)].into_iter().sum()
    };
    match id {
        "params_3x3_64_64" => small(&[64, 64, 3, 3], 1).parameters,
        "params_3x3_64_64_g2" => small(&[64, 32, 3, 3], 2).parameters,
        "separable_12x12x3_standard_mults" => of(&photo, &[256, 3, 5, 5], &PLAIN()).multiplications,
        "separable_12x12x3_separable_mults" => {
            cost::separable(&photo, &[3, 1, 5, 5], &[256, 3, 1, 1], &PLAIN()).unwrap().multiplications
        }
        "conv_6_to_3_params" => of(&x, &[3, 6, 3, 3], &padded).parameters,
        "conv_6_to_3_macs" => of(&x, &[3, 6, 3, 3], &padded).macs,
        "conv_6_to_3_g3_params" => of(&x, &[3, 2, 3, 3], &padded.groups(3)).parameters,
        "conv_6_to_3_g3_macs" => of(&x, &[3, 2, 3, 3], &padded.groups(3)).macs,
        "conv_6_to_3_dws_params" => separable().parameters,
        "conv_6_to_3_dws_macs" => separable().macs,
        "bottleneck_direct_params" => of(&wide, &[256, 256, 3, 3], &padded).parameters,
        "bottleneck_params" => bottleneck().parameters,
        other => panic!("unknown example {other}"),
    }
}

#[test]
fn worked_examples() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/worked_examples.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut rows, mut windows) = (0, 0);
    for example in file["examples"].as_array().unwrap() {
        let id = example["id"].as_str().unwrap();
        if id != "receptive_field" {
            assert_eq!(answer(id), number(example, "stated"), "{id}");
            rows += 1;
            continue;
        }
        for row in example["rows"].as_array().unwrap() {
            let [kernel, rate, expected] = ["k", "r", "F"].map(|key| number(row, key) as usize);
            assert_eq!(effective_kernel(kernel, rate).unwrap(), expected, "{row}");
            let [field] = receptive_field(&[Layer::new(kernel).dilation(rate)]).unwrap();
            assert_eq!((field.size, field.size as u64), (expected, number(row, "check")), "{row}");
            windows += 1;
        }
    }
    assert_eq!((rows, windows), (12, 35));
}

#[test]
fn output_of_the_separable_example() {
    let cost = cost::conv(&[1, 3, 12, 12], &[256, 3, 5, 5], &PLAIN()).unwrap();
    assert_eq!(cost.output_bytes, 4 * 256 * 8 * 8);
}

#[test]
fn stacked_dilations() {
    let stack = |rates: &[usize]| rates.iter().map(|&rate| Layer::<1>::new(3).dilation(rate)).collect::<Vec<_>>();
    for (rates, size) in [(&[1, 2, 4][..], 15), (&[2, 2], 9), (&[1, 2, 5], 17), (&[2, 2, 2], 13), (&[2, 4, 8], 29)] {
        assert_eq!(receptive_field(&stack(rates)).unwrap()[0], ReceptiveField { size, stride: 1, start: 0 });
    }
    let map = |rates: &[usize]| GriddingMap::new(&stack(rates)).unwrap();
    let dense =
        |counts: &[u128]| counts.iter().flat_map(|&count| [count, 0]).take(2 * counts.len() - 1).collect::<Vec<_>>();
    assert_eq!(map(&[2, 2, 2]).axes()[0], dense(&[1, 3, 6, 7, 6, 3, 1]));
    assert_eq!(map(&[2, 4, 8]).axes()[0], dense(&[1, 1, 2, 1, 3, 2, 3, 1, 3, 2, 3, 1, 2, 1, 1]));
    assert_eq!(map(&[1, 2, 5]).axes()[0], [1, 1, 2, 1, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 2, 1, 1]);
    assert!(map(&[2, 2, 2]).has_holes() && map(&[2, 4, 8]).has_holes() && map(&[1, 2, 9]).has_holes());
    assert!(!map(&[1, 2, 5]).has_holes() && !map(&[1, 2, 5, 1, 2, 5]).has_holes());
    assert!(map(&[2, 3]).has_holes());
}

#[test]
fn padding_for_the_same_size() {
    let sides = Layer::new(3).dilation(2).same_padding([32, 32]).unwrap();
    assert_eq!(sides, [(2, 2), (2, 2)]);
    let options = PLAIN().dilation(2).padding(sides);
    assert_eq!(cost::conv(&[1, 1, 32, 32], &[1, 1, 3, 3], &options).unwrap().output_bytes, 4 * 32 * 32);
}

#[test]
fn batch_of_digits() {
    let cost = cost::conv(&[8, 1, 28, 28], &[16, 1, 3, 3], &PLAIN().bias(true)).unwrap();
    assert_eq!(cost.output_bytes, 4 * 8 * 16 * 26 * 26);
    assert_eq!((cost.input_bytes, cost.parameters), (4 * 8 * 28 * 28, 16 * 9 + 16));
    assert_eq!((cost.macs, cost.flops), (8 * 16 * 26 * 26 * 9, 2 * 8 * 16 * 26 * 26 * 9));
}

#[test]
fn rank_one_kernel() {
    let (column, row) = (arr2(&[[3], [4], [5]]), arr2(&[[1, 2, 3]]));
    let kernel = column.dot(&row);
    assert_eq!(kernel, arr2(&[[3, 6, 9], [4, 8, 12], [5, 10, 15]]));
    // Counts the multiplications as they are made.
    fn correlate(x: &Array2<i32>, w: &Array2<i32>, multiplications: &mut u64) -> Array2<i32> {
        let ((h, width), (kh, kw)) = (x.dim(), w.dim());
        Array2::from_shape_fn((h - kh + 1, width - kw + 1), |(i, j)| {
            w.indexed_iter().fold(0, |sum, ((a, b), weight)| {
                *multiplications += 1;
                sum + weight * x[[i + a, j + b]]
            })
        })
    }
    let x = Array2::from_shape_fn((7, 6), |(i, j)| (i * i + 3 * j) as i32 % 11 - 4);
    let (mut whole, mut parts) = (0, 0);
    let expected = correlate(&x, &kernel, &mut whole);
    let middle = correlate(&x, &column, &mut parts);
    assert_eq!(correlate(&middle, &row, &mut parts), expected);
    let shape = [1, 1, 7, 6];
    assert_eq!(cost::conv(&shape, &[1, 1, 3, 3], &PLAIN()).unwrap().multiplications, whole);
    let cost = cost::spatially_separable(&shape, &[1, 1, 3, 1], &[1, 1, 1, 3], &PLAIN()).unwrap();
    assert_eq!((cost.multiplications, cost.parameters), (parts, 6));
}

#[test]
fn options_reach_each_axis() {
    let options = PLAIN().stride([2, 1]).dilation([1, 2]).padding([(1, 0), (2, 3)]);
    // Columns of 3 over 9+1, every second: 4; rows of 4 taps, 2 apart, over 8+5: 7.
    let cost = cost::spatially_separable(&[2, 4, 9, 8], &[6, 4, 3, 1], &[5, 6, 1, 4], &options).unwrap();
    assert_eq!(cost.macs, 2 * (6 * 4 * 8 * 4 * 3 + 5 * 4 * 7 * 6 * 4));
    assert_eq!(cost.output_bytes, 4 * 2 * (6 * 4 * 8 + 5 * 4 * 7));
    // 4 inputs, 3 apart, with 3 taps, 2 apart: 9 + 4 + 1 and 2 more, less 3.
    let options = Options::<1>::new().stride(3).dilation(2).output_padding(2).padding([(1, 2)]).bias(true).groups(2);
    let cost = cost::conv_transpose(&[1, 4, 4], &[4, 3, 3], &options).unwrap();
    assert_eq!((cost.output_bytes, cost.parameters, cost.macs), (4 * 6 * 13, 4 * 3 * 3 + 6, 4 * 4 * 3 * 3));
    let volume = cost::conv(&[1, 2, 4, 5, 6], &[3, 2, 1, 2, 3], &Options::<3>::new().stride([2, 1, 1])).unwrap();
    assert_eq!((volume.macs, volume.output_bytes), (3 * 2 * 4 * 4 * 2 * 6, 4 * 3 * 2 * 4 * 4));
    // PyTorch's number of windows in ceil mode: the third one of 3 inputs would lie in the padding.
    let pooled = |extent, kernel, padding, ceil| {
        let options = Options::<1>::new().stride(2).padding(padding).ceil_mode(ceil);
        cost::max_pool(&[1, 1, extent], kernel, &options).unwrap().output_bytes / 4
    };
    assert_eq!(
        [pooled(5, 2, 0, false), pooled(5, 2, 0, true), pooled(6, 3, 0, true), pooled(3, 2, 1, true)],
        [2, 3, 3, 2]
    );
    // A layer with stride 2: the pool's 2x2 windows and two biases besides.
    let options = PLAIN().stride(2).padding(1).groups(2).bias(true);
    let layer = cost::involution_layer(&[1, 8, 7, 7], 3, 4, &options).unwrap();
    let pool = cost::avg_pool(&[1, 8, 7, 7], 2, &PLAIN().ceil_mode(true)).unwrap();
    assert_eq!(pool.flops, 8 * 16 * 4);
    assert_eq!(layer.parameters, 8 * 2 + 2 + 2 * 18 + 18);
    assert_eq!(layer.flops, pool.flops + 2 * 16 * (8 * 2 + 2 * 18 + 8 * 9));
}

#[test]
fn deformable_counts_offsets_and_mask() {
    // 2 images, 25 outputs of 4 taps: 100 taps an image, each with a point for 3 offset groups and a value for 6 channels.
    let (points, values) = (2 * 100 * 3, 2 * 100 * 6);
    let options = PLAIN().stride(2).padding(1).groups(2).offset_groups(3).bias(true);
    let count = |mask| cost::deform_conv2d(&[2, 6, 8, 8], &[4, 3, 2, 2], &options.mask(mask)).unwrap();
    let (v1, v2) = (count(false), count(true));
    assert_eq!((v1.macs, v2.macs), (2 * 100 * 4 * 3, v1.macs));
    assert_eq!((v1.parameters, v1.weight_bytes), (4 * 3 * 4 + 4, 4 * (4 * 3 * 4 + 4)));
    assert_eq!(v1.multiplications, v1.macs + 4 * points + 4 * values);
    assert_eq!(v1.flops, 2 * v1.macs + 10 * points + 7 * values);
    assert_eq!(v1.input_bytes, 4 * (2 * 6 * 64 + 2 * points));
    assert_eq!((v2.multiplications, v2.flops), (v1.multiplications + 4 * points, v1.flops + 4 * points));
    assert_eq!(v2.input_bytes, v1.input_bytes + 4 * points);
    assert_eq!((v2.output_bytes, v2.weight_bytes), (4 * 2 * 4 * 25, v1.weight_bytes));
}

#[test]
fn an_involutions_weight_is_no_parameter() {
    let cost = cost::involution2d(&[2, 6, 9, 9], [3, 5], &PLAIN().stride(2).padding([1, 2]).groups(3)).unwrap();
    assert_eq!((cost.parameters, cost.weight_bytes), (0, 4 * 2 * 3 * 15 * 25));
    assert_eq!((cost.macs, cost.output_bytes), (2 * 6 * 25 * 15, 4 * 2 * 6 * 25));
}

#[test]
fn blocks_add_up() {
    let one = cost::linear(&[3, 5, 10], &[4, 10], false).unwrap();
    let expected = Cost { parameters: 40, multiplications: 600, macs: 600, flops: 1200, ..Cost::default() };
    assert_eq!(one, Cost { input_bytes: 600, weight_bytes: 160, output_bytes: 240, ..expected });
    assert_eq!(one.arithmetic_intensity(), 1.2);
    assert_eq!(
        one.to_string(),
        "40 parameters, 600 multiplications, 600 MACs, 1200 FLOPs, 1000 bytes, 1.20 FLOPs a byte"
    );
    let block: Cost = [one, one, cost::add(&[5]).unwrap()].into_iter().sum();
    assert_eq!((block.flops, block.bytes(), block.parameters), (2405, 2060, 80));
    assert_eq!(Cost::default().arithmetic_intensity(), 0.0);
    let most = Cost { flops: u64::MAX, input_bytes: u64::MAX, ..one };
    assert_eq!(((most + one).flops, (most + one).bytes()), (u64::MAX, u64::MAX));
}

/// The argument that is at fault.
fn fault<T>(result: Result<T>) -> &'static str {
    match result.map(|_| ()) {
        Err(Error::Invalid { argument, .. }) => argument,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mistakes_name_the_argument() {
    let (x, w) = ([1, 4, 5, 5], [6, 4, 3, 3]);
    let conv = |x: &[usize], w: &[usize], options: Options<2>| fault(cost::conv(x, w, &options));
    assert_eq!(conv(&[1, 4, 5], &w, PLAIN()), "input");
    assert_eq!(conv(&[1, 4, 0, 5], &w, PLAIN()), "input");
    assert_eq!(conv(&x, &[6, 4, 3], PLAIN()), "weight");
    assert_eq!(conv(&x, &[6, 3, 3, 3], PLAIN()), "weight");
    assert_eq!(conv(&x, &w, PLAIN().groups(3)), "groups");
    assert_eq!(conv(&x, &w, PLAIN().groups(0)), "groups");
    assert_eq!(conv(&x, &w, PLAIN().stride([1, 0])), "stride");
    assert_eq!(conv(&x, &w, PLAIN().dilation(0)), "dilation");
    assert_eq!(conv(&x, &w, PLAIN().dilation(3)), "kernel");
    assert_eq!(conv(&x, &w, PLAIN().mask(true)), "mask");
    assert_eq!(conv(&x, &w, PLAIN().ceil_mode(true)), "ceil_mode");
    assert_eq!(conv(&x, &w, PLAIN().output_padding(1)), "output_padding");
    assert_eq!(conv(&x, &w, PLAIN().offset_groups(2)), "offset_groups");
    assert_eq!(fault(cost::separable(&x, &[4, 1, 3, 3], &[6, 4, 3, 1], &PLAIN())), "pointwise");
    assert_eq!(fault(cost::separable(&x, &[4, 1, 3, 3], &[6, 4], &PLAIN())), "pointwise");
    assert_eq!(fault(cost::separable(&x, &[4, 4, 3, 3], &[6, 4, 1, 1], &PLAIN())), "depthwise");
    assert_eq!(fault(cost::spatially_separable(&x, &[6, 4, 3, 1], &[6, 5, 1, 3], &PLAIN())), "row");
    assert_eq!(fault(cost::spatially_separable(&x, &w, &[6, 6, 1, 3], &PLAIN())), "column");
    assert_eq!(fault(cost::spatially_separable(&x, &[6, 4, 3, 1], &[6, 6, 3, 1], &PLAIN())), "row");
    assert_eq!(fault(cost::conv_transpose(&x, &w, &PLAIN())), "weight");
    assert_eq!(fault(cost::conv_transpose(&x, &[4, 1, 3, 3], &PLAIN().output_padding(1))), "output_padding");
    assert_eq!(fault(cost::conv_transpose(&x, &[4, 1, 3, 3], &PLAIN().padding(crate::Padding::Same))), "padding");
    assert_eq!(fault(cost::conv_transpose(&x, &[4, 1, 3, 3], &PLAIN().padding(4))), "padding");
    assert_eq!(fault(cost::deform_conv2d(&x, &w, &PLAIN().offset_groups(3))), "offset_groups");
    assert_eq!(fault(cost::involution2d(&x, 3, &PLAIN().groups(3))), "groups");
    assert_eq!(fault(cost::involution2d(&x, 0, &PLAIN())), "kernel");
    assert_eq!(fault(cost::involution_layer(&x, 3, 2, &PLAIN())), "padding");
    assert_eq!(fault(cost::involution_layer(&x, 3, 3, &PLAIN().padding(1))), "reduction");
    assert_eq!(fault(cost::linear(&[2, 9], &[4, 10], false)), "input");
    assert_eq!(fault(cost::linear(&[], &[4, 10], false)), "input");
    assert_eq!(fault(cost::linear(&[2, 0], &[4, 0], false)), "weight");
    assert_eq!(fault(cost::max_pool::<2>(&x, 0, &PLAIN())), "kernel");
    assert_eq!(fault(cost::max_pool(&x, 3, &PLAIN().padding(2))), "padding");
    assert_eq!(fault(cost::avg_pool(&x, 3, &PLAIN().padding([(0, 1), (1, 1)]))), "padding");
    assert_eq!(fault(cost::avg_pool(&x, 3, &PLAIN().bias(true))), "bias");
    assert_eq!(fault(cost::global_avg_pool(&[3])), "input");
    assert_eq!(fault(cost::add(&[3, 0])), "input");
}

/// No sizes make any operator panic: overflow checks are on in tests.
#[test]
fn any_size_is_an_answer_or_an_error() {
    const SIZES: [usize; 7] = [0, 1, 3, 1 << 15, 1 << 30, usize::MAX - 1, usize::MAX];
    let (mut answers, mut analyses) = ([0; 14], [0; 6]);
    let mut seed = 1u64;
    let mut draw = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        SIZES[(seed >> 33) as usize % SIZES.len()]
    };
    for round in 0..20_000 {
        // Small batches and channels now and then, else hardly anything is an answer.
        let mut channels = || if round % 2 == 0 { 1 } else { draw() };
        let (n, c, o, g) = (channels(), channels(), channels(), channels());
        let (h, k, kw, s, d, p, q) = (draw(), draw(), draw(), draw(), draw(), draw(), draw());
        let options = PLAIN().stride([s, q]).dilation([d, 1]).padding([(p, q), (q, p)]).groups(g);
        let pool = PLAIN().stride([s, 1]).dilation(d).padding(p);
        let (x, w) = ([n, c, h, q], [o, c / g.max(1), k, kw]);
        let costs = [
            cost::conv(&x, &w, &options.bias(true)),
            cost::conv(&x, &w, &options.padding(crate::Padding::Same)),
            cost::separable(&x, &[c, 1, k, kw], &[o, c, 1, 1], &options.groups(1)),
            cost::spatially_separable(&x, &[o, c, k, 1], &[o, o, 1, kw], &options.groups(1)),
            cost::conv_transpose(&x, &[c, o, k, kw], &options.output_padding([0, 1])),
            cost::conv_transpose(&x, &[c, o, k, kw], &options.bias(true)),
            cost::deform_conv2d(&x, &w, &options.mask(true).offset_groups(g)),
            cost::involution2d(&x, [k, kw], &options),
            cost::involution_layer(&x, [k, kw], o, &options.padding(crate::Padding::Same)),
            cost::linear(&[n, h, c], &[o, c], true),
            cost::max_pool(&x, [k, kw], &pool),
            cost::avg_pool(&x, [k, kw], &pool.ceil_mode(true)),
            cost::global_avg_pool(&x),
            cost::add(&x),
        ];
        let layers = [Layer::<2>::new([k, kw]).stride(s).dilation(d).padding(p), Layer::new(kw).dilation([q, s])];
        let hold = |rates: &[usize]| hdc(rates, d).map(|report| report.to_string());
        let others = [
            receptive_field(&layers).is_ok(),
            layers[0].same_padding([h, q]).is_ok(),
            effective_kernel(k, d).is_ok(),
            hold(&[k, kw, s]).is_ok(),
            propose_rates(h, k).is_ok(),
            // The largest maps take a while.
            round % 200 == 0 && GriddingMap::new(&layers).is_ok(),
        ];
        for (count, answered) in answers.iter_mut().zip(costs.map(|cost| cost.is_ok())) {
            *count += usize::from(answered);
        }
        for (count, answered) in analyses.iter_mut().zip(others) {
            *count += usize::from(answered);
        }
    }
    // Each of them answers now and then.
    assert!(answers.iter().chain(&analyses).all(|&count| count > 0), "{answers:?} {analyses:?}");
}
