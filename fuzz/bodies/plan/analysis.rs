//! What is worked out of stacks and shapes without running anything: receptive fields, gridding, hybrid dilation, costs.

use wgconv::analysis::cost::{self, Cost, Options};
use wgconv::analysis::{GriddingMap, HdcGroup, Layer, effective_kernel, hdc, propose_rates, receptive_field};
use wgconv::blocks::{
    AsppConfig, BottleneckConfig, DeformConfig, LocalAttentionConfig, Middle, RfbConfig, WaveNetConfig,
};
use wgconv::{Border, Padding, Result};

use super::bytes::Bytes;
use super::check::{volume, wide};
use super::windows::{Steps, split};

/// Pixels along an axis up to which a gridding map is made: beyond, it takes the time of many other inputs.
const MOST_GRID: usize = 4096;

pub fn fields(bytes: &mut Bytes<'_>) {
    let count = bytes.byte() % 6;
    let drawn: Vec<[[usize; 2]; 4]> =
        (0..count).map(|_| [bytes.steps(), bytes.steps(), bytes.steps(), bytes.paddings()]).collect();
    let layer = |[kernel, stride, dilation, padding]: &[[usize; 2]; 4]| {
        Layer::<2>::new(*kernel).stride(*stride).dilation(*dilation).padding(*padding)
    };
    let layers: Vec<_> = drawn.iter().map(layer).collect();
    let valid = drawn.iter().all(|layer| layer[..3].iter().flatten().all(|&step| step > 0));
    let got = receptive_field(&layers);
    let (mut fits, mut short) = (valid, valid);
    for axis in 0..2 {
        // Every number on the way, since the library may stop at any of them.
        let (mut size, mut jump, mut start, mut most) = (1i128, 1i128, 0i128, 1i128);
        for [kernel, stride, dilation, padding] in drawn.iter().map(|layer| layer.map(|option| option[axis] as i128)) {
            size = size.saturating_add((kernel - 1).saturating_mul(dilation).saturating_mul(jump));
            start = start.saturating_sub(padding.saturating_mul(jump));
            jump = jump.saturating_mul(stride);
            most = most
                .max(size)
                .max(jump)
                .max(start.saturating_neg())
                .max(padding)
                .max((kernel - 1).saturating_mul(dilation));
        }
        fits &= size <= usize::MAX as i128;
        short &= most <= i64::MAX as i128;
        if let Ok(fields) = &got {
            let field = [fields[axis].size as i128, fields[axis].stride as i128, fields[axis].start as i128];
            assert_eq!(field, [size, jump, start], "{drawn:?}");
        }
    }
    assert!(fits || got.is_err(), "{drawn:?}: {got:?}");
    assert!(!short || got.is_ok(), "{drawn:?}: {got:?}");
    let fields = got.map(|fields| fields.map(|field| field.size)).unwrap_or([usize::MAX; 2]);
    let map = fields.iter().all(|&size| size <= MOST_GRID).then(|| GriddingMap::new(&layers));
    if let Some(Ok(map)) = map {
        assert_eq!(map.axes().each_ref().map(Vec::len), fields, "{drawn:?}");
        assert!(map.axes().iter().all(|counts| counts[0] == 1 && counts.last() == Some(&1)), "{drawn:?}");
        assert_eq!(map.has_holes(), map.share_seen() < 1.0, "{drawn:?}");
        assert!(fields[0] * fields[1] > MOST_GRID || map.counts().is_ok(), "{drawn:?}");
    }
    let (kernel, dilation) = (bytes.extent(), bytes.extent());
    let window = (kernel as i128 - 1).saturating_mul(dilation as i128).saturating_add(1);
    let window = Some(window).filter(|&window| kernel > 0 && dilation > 0 && window <= usize::MAX as i128);
    assert_eq!(effective_kernel(kernel, dilation).ok().map(|window| window as i128), window, "{kernel} {dilation}");
}

pub fn rates(bytes: &mut Bytes<'_>) {
    let count = bytes.byte() % 12;
    let rates: Vec<usize> = (0..count).map(|_| bytes.step()).collect();
    let kernel = bytes.step();
    let valid = !rates.is_empty() && rates.iter().all(|rate| (1..=usize::MAX / 2).contains(rate));
    let group = HdcGroup::new(&rates);
    assert_eq!(group.is_ok(), valid, "{rates:?}");
    if let Ok(group) = group {
        let mut distance = rates[rates.len() - 1] as i128;
        for (at, &rate) in rates.iter().enumerate().rev().skip(1) {
            let rate = rate as i128;
            distance = (distance - 2 * rate).max(2 * rate - distance).max(rate);
            assert_eq!(group.distances()[at] as i128, distance, "{rates:?}");
        }
        assert!(rates.iter().all(|rate| rate % group.divisor() == 0), "{rates:?}");
    }
    let report = hdc(&rates, kernel);
    assert_eq!(report.is_ok(), valid && kernel > 0, "{rates:?}, {kernel}");
    if let Ok(report) = report {
        assert_eq!(report.holds(), report.to_string() == "HDC holds");
        assert_eq!(
            report.groups().iter().flat_map(HdcGroup::rates).collect::<Vec<_>>(),
            rates.iter().collect::<Vec<_>>()
        );
    }
    let field = bytes.extent();
    if let Ok(proposed) = propose_rates(field, kernel) {
        let sum: i128 = proposed.iter().map(|&rate| rate as i128).sum();
        let (field, grow) = (field as i128, kernel as i128 - 1);
        assert!(
            1 + grow * sum >= field && (sum == 0 || 1 + grow * (sum - 1) < field),
            "{field}, {kernel}: {proposed:?}"
        );
        assert!(proposed.is_sorted() && proposed.first().is_none_or(|&first| first == 1), "{proposed:?}");
    }
}

pub fn costs(bytes: &mut Bytes<'_>) {
    let (groups, cg, og) = (bytes.step(), bytes.step(), bytes.step());
    let mut x = [&[bytes.step(), groups.saturating_mul(cg)][..], &bytes.extents::<2>()].concat();
    let mut w = [&[groups.saturating_mul(og), cg][..], &bytes.steps::<2>()].concat();
    bytes.spoil(&mut x);
    bytes.spoil(&mut w);
    let steps = Steps::<2>::draw(bytes);
    let options = Options::<2>::new().stride(steps.stride).dilation(steps.dilation).groups(groups).bias(bytes.flag());
    let options = options.padding(steps.padding);
    if let (Ok(cost), Some((head, extents)), Some((channels, kernel))) =
        (cost::conv(&x, &w, &options), split::<2>(&x), split::<2>(&w))
    {
        let output = steps.windows(&extents, &kernel, Border::Zeros).0.expect("a cost of no window");
        let elements = volume(&[head[0], channels[0], output[0], output[1]]);
        let macs = volume(&[elements, channels[1], kernel[0], kernel[1]]);
        assert_eq!((i128::from(cost.macs), i128::from(cost.output_bytes)), (macs, 4 * elements), "{x:?} {w:?}");
        assert_eq!(i128::from(cost.input_bytes), 4 * volume(&wide(&x)), "{x:?}");
    }
    let (a, b, c) = (bytes.step(), bytes.step(), bytes.step());
    let offsets = options.offset_groups(a).mask(bytes.flag());
    let plain = Options::<2>::new().stride(steps.stride);
    let more = plain.dilation(steps.dilation).groups(groups).output_padding([b, c]).padding([a, b]);
    let pool = plain.padding(a).ceil_mode(bytes.flag());
    let (square, all) = (
        [b, b],
        [
            cost::conv_transpose(&x, &w, &more),
            cost::deform_conv2d(&x, &w, &offsets),
            cost::separable(&x, &w, &[c, w.first().copied().unwrap_or(0), 1, 1], &plain.padding(Padding::Same)),
            cost::spatially_separable(&x, &[a, cg, b, 1], &[c, a, 1, b], &plain),
            cost::max_pool(&x, [b, c], &pool),
            cost::avg_pool(&x, [b, c], &pool),
            cost::global_avg_pool(&x),
            cost::linear(&x, &w, true),
            cost::add(&x),
            cost::involution2d(&x, [b, c], &options.bias(false)),
            cost::involution_layer(&x, [b, c], a, &options),
        ],
    );
    all.into_iter().chain(blocks(bytes, &x, square)).for_each(shown);
}

/// The costs of blocks.
fn blocks(bytes: &mut Bytes<'_>, x: &[usize], [a, b]: [usize; 2]) -> Vec<Result<Cost>> {
    let (c_in, c_out, kernel) = (bytes.step(), bytes.step(), bytes.step());
    let (stride, dilation, groups) = (bytes.step(), bytes.step(), bytes.step());
    let middle = match bytes.byte() % 3 {
        0 => Middle::Conv,
        1 => Middle::Deform { modulated: bytes.flag(), offset_groups: a },
        _ => Middle::Involution { kernel, group_channels: a },
    };
    let bottleneck = BottleneckConfig { stride, dilation, groups, middle, ..BottleneckConfig::new(c_in, b, c_out) };
    let deform = DeformConfig { kernel, stride, dilation, groups, offset_groups: a, ..DeformConfig::new(c_in, c_out) };
    let attention = LocalAttentionConfig { in_channels: c_in, channels: c_out, heads: groups, kernel };
    vec![
        cost::bottleneck(x, &bottleneck),
        cost::mobilenet_v1_block(x, c_out, stride),
        cost::inverted_residual(x, c_out, (stride, a)),
        cost::inception_7x7(x, a, c_out),
        cost::aspp(x, &AsppConfig { rates: vec![a, b, dilation], ..AsppConfig::new(c_in, c_out) }),
        cost::hdc_group(x, &[a, b, dilation]),
        cost::duc(x, c_out, a),
        cost::rfb(x, &RfbConfig { stride, visual: a, ..RfbConfig::new(c_in, c_out) }),
        cost::wavenet(x, &WaveNetConfig { layers: a.min(31), kernel, ..WaveNetConfig::new(c_in, c_out) }),
        cost::deform_layer(x, &deform),
        cost::pointnet(x, &[c_in, c_out, a]),
        cost::local_attention(x, &attention),
    ]
}

/// Whatever comes out can be printed.
fn shown(cost: Result<Cost>) {
    match cost {
        Ok(cost) => assert!(!cost.to_string().is_empty() && cost.arithmetic_intensity().is_finite()),
        Err(error) => assert!(error.to_string().starts_with("cost::"), "{error}"),
    }
}
