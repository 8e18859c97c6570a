//! Transposed convolution, pools and the other operators of a network.

use wgconv::reference::{ConvTransposeSpec, MaxPoolSpec, conv_transpose_out_shape, max_pool_out_shape};
use wgconv::{
    Activation, Add, AvgPool, Concat, ConvTranspose, ConvTransposeKernel, GlobalAvgPool, Linear, LinearKernel, MaxPool,
    Mul, Narrow, PixelShuffle, Profile, Sides, Softmax, UpsampleNearest,
};

use super::bytes::Bytes;
use super::check::{Expected, bias, volume, wide};
use super::windows::{activation, split};

pub fn conv_transpose<const R: usize>(bytes: &mut Bytes<'_>, profile: &Profile) {
    let op = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"][R - 1];
    let (mut groups, cg, og, batch) = (bytes.step(), bytes.step(), bytes.step(), bytes.step());
    let c_in = groups.saturating_mul(cg);
    let mut input = [&[batch, c_in][..], &bytes.extents::<R>()].concat();
    let mut weight = [&[c_in, og][..], &bytes.steps::<R>()].concat();
    bytes.spoil(&mut input);
    bytes.spoil(&mut weight);
    if bytes.byte() > 240 {
        groups = bytes.extent();
    }
    let (stride, dilation, more) = (bytes.steps::<R>(), bytes.steps::<R>(), bytes.paddings::<R>());
    let sides: [(usize, usize); R] = std::array::from_fn(|_| (bytes.padding(), bytes.padding()));
    let layer = ConvTranspose::<R>::new().stride(stride).dilation(dilation).output_padding(more).padding(Sides(sides));
    let layer = layer.groups(groups).activation(activation(bytes));
    let mut expected = Expected { output: None, arguments: Vec::new(), longest: 0 };
    if let (Some(([batch, c_in], extents)), Some(([w_in, og], kernel))) = (split::<R>(&input), split::<R>(&weight)) {
        let mut output = vec![batch, og.saturating_mul(groups as i128)];
        let mut fits = groups > 0 && c_in % groups.max(1) as i128 == 0 && w_in == c_in;
        for a in 0..R {
            let [stride, dilation, more] = [stride[a], dilation[a], more[a]].map(|step| step as i128);
            let taps = (kernel[a] - 1).saturating_mul(dilation);
            let full = (extents[a] - 1).saturating_mul(stride).saturating_add(taps).saturating_add(more + 1);
            let out = full.saturating_sub(sides[a].0 as i128 + sides[a].1 as i128);
            fits &= stride > 0 && dilation > 0 && more < stride.max(dilation) && out > 0;
            expected.longest = expected.longest.max(full);
            output.push(out);
        }
        expected.arguments = vec![wide(&input), wide(&weight), bias(output[1], profile), output.clone()];
        expected.output = Some(output).filter(|_| fits);
    }
    expected.reference(conv_transpose_out_shape(
        &input,
        &weight,
        &ConvTransposeSpec {
            stride: stride.to_vec(),
            dilation: dilation.to_vec(),
            pads: sides.to_vec(),
            output_padding: more.to_vec(),
            groups,
        },
    ));
    if expected.shape(op, &layer.output_shape(&input, &weight), profile) {
        let all = [ConvTransposeKernel::Direct, ConvTransposeKernel::Subgroup];
        expected.plans(op, profile, (layer.candidates(profile, &input, &weight), &all), |kernel| {
            layer.clone().kernel(kernel.unwrap_or_default()).plan(profile, &input, &weight)
        });
    }
}

pub fn pool<const R: usize>(bytes: &mut Bytes<'_>, profile: &Profile) {
    let mut input = [&[bytes.step(), bytes.step()][..], &bytes.extents::<R>()].concat();
    bytes.spoil(&mut input);
    let (kernel, padding) = (bytes.steps::<R>(), bytes.paddings::<R>());
    let is_max = bytes.flag();
    let dilation = if is_max { bytes.steps::<R>() } else { [1; R] };
    let stride = if bytes.flag() { Some(bytes.steps::<R>()) } else { None };
    let (ceil, counted, activation) = (bytes.flag(), bytes.flag(), activation(bytes));
    let mut expected = Expected { output: None, arguments: vec![wide(&input)], longest: 0 };
    if let Some((head, extents)) = split::<R>(&input) {
        let (mut output, mut fits) = (head.to_vec(), true);
        for a in 0..R {
            let [kernel, stride, dilation, pad] =
                [kernel[a], stride.unwrap_or(kernel)[a], dilation[a], padding[a]].map(|size| size as i128);
            if kernel < 1 || stride < 1 || dilation < 1 || pad > kernel / 2 {
                fits = false;
                break;
            }
            let padded = extents[a] + 2 * pad;
            let room = padded.saturating_sub(dilation.saturating_mul(kernel - 1)).saturating_sub(1);
            let mut windows = (room + if ceil { stride - 1 } else { 0 }).div_euclid(stride) + 1;
            // The last window starts in the input or the padding before it.
            if ceil && (windows - 1).saturating_mul(stride) >= extents[a] + pad {
                windows -= 1;
            }
            fits &= windows > 0;
            output.push(windows);
            // In ceil mode a window may be longer than the input, by less than the stride.
            expected.longest = expected.longest.max(padded).max(padded.saturating_sub(room));
        }
        expected.output = Some(output).filter(|_| fits);
    }
    let of_reference = MaxPoolSpec {
        kernel: kernel.to_vec(),
        stride: stride.unwrap_or(kernel).to_vec(),
        padding: padding.to_vec(),
        dilation: dilation.to_vec(),
        ceil_mode: ceil,
    };
    expected.reference(max_pool_out_shape(&input, &of_reference));
    if is_max {
        let op = ["max_pool1d", "max_pool2d", "max_pool3d"][R - 1];
        let pool = MaxPool::<R>::new(kernel).dilation(dilation).padding(padding).ceil_mode(ceil).activation(activation);
        let pool = if let Some(stride) = stride { pool.stride(stride) } else { pool };
        if expected.shape(op, &pool.output_shape(&input), profile) {
            expected.plan(op, profile, pool.plan(profile, &input));
        }
    } else {
        let op = ["avg_pool1d", "avg_pool2d", "avg_pool3d"][R - 1];
        let pool = AvgPool::<R>::new(kernel).padding(padding).ceil_mode(ceil).activation(activation);
        let pool = if let Some(stride) = stride { pool.stride(stride) } else { pool }.count_include_pad(counted);
        if expected.shape(op, &pool.output_shape(&input), profile) {
            expected.plan(op, profile, pool.plan(profile, &input));
        }
    }
}

/// Operators with one input whose output has the same shape or a mean of it.
pub fn pointwise(bytes: &mut Bytes<'_>, profile: &Profile) {
    let input = bytes.shape();
    let full = !input.contains(&0);
    let longest = 0;
    let of = |output: Option<Vec<i128>>| Expected { output, arguments: vec![wide(&input)], longest };
    let same = of(Some(wide(&input)).filter(|_| full));
    match same.output {
        Some(_) if !same.shape("activation", &Ok(input.clone()), profile) => {}
        Some(_) => same.plan("activation", profile, activation(bytes).plan(profile, &input)),
        None => assert!(Activation::Relu.plan(profile, &input).is_err(), "{input:?}"),
    }
    let axis = bytes.byte() as i8 as isize;
    let rank = input.len() as isize;
    let axis = if axis < -100 { isize::MIN + (axis + 128) } else { axis % 12 };
    let expected = of(same.output.clone().filter(|_| (-rank..rank).contains(&axis)));
    let softmax = Softmax::new(axis);
    if expected.shape("softmax", &softmax.output_shape(&input), profile) {
        expected.plan("softmax", profile, softmax.plan(profile, &input));
    }
    let means = |shape: Vec<i128>| shape.iter().enumerate().map(|(axis, &e)| if axis < 2 { e } else { 1 }).collect();
    let expected = of(same.output.filter(|_| rank > 2).map(means));
    let pool = GlobalAvgPool::new();
    if expected.shape("global_avg_pool", &pool.output_shape(&input), profile) {
        expected.plan("global_avg_pool", profile, pool.plan(profile, &input));
    }
}

pub fn linear(bytes: &mut Bytes<'_>, profile: &Profile) {
    let mut weight = bytes.extents::<2>().to_vec();
    let mut input = bytes.shape();
    input.truncate(5);
    input.push(weight[1]);
    bytes.spoil(&mut weight);
    bytes.spoil(&mut input);
    let fits = weight.len() == 2 && !weight.contains(&0) && !input.contains(&0) && input.last() == weight.last();
    let output = fits.then(|| [&wide(&input)[..input.len() - 1], &[weight[0] as i128]].concat());
    let arguments = vec![wide(&input), wide(&weight), Vec::new(), output.clone().unwrap_or_default()];
    let expected = Expected { output, arguments, longest: 0 };
    let linear = Linear::new().activation(activation(bytes));
    if expected.shape("linear", &linear.output_shape(&input, &weight), profile) {
        let all = [LinearKernel::Dot, LinearKernel::Subgroup];
        expected.plans("linear", profile, (linear.candidates(profile, &input, &weight), &all), |kernel| {
            linear.clone().kernel(kernel.unwrap_or_default()).plan(profile, &input, &weight)
        });
    }
}

pub fn binary(bytes: &mut Bytes<'_>, profile: &Profile) {
    let a = bytes.shape();
    // Mostly the same axes, or 1, or fewer.
    let mut b: Vec<usize> = a.iter().map(|&extent| if bytes.flag() { extent } else { 1 }).collect();
    b.drain(..usize::from(bytes.byte() % 4).min(b.len()));
    bytes.spoil(&mut b);
    let (mul, activation) = (bytes.flag(), activation(bytes));
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| shape.len().checked_sub(rank - axis).map_or(1, |at| shape[at] as i128);
    let pairs = || (0..rank).map(|axis| (at(&a, axis), at(&b, axis)));
    let fits = rank <= 8 && pairs().all(|(a, b)| a > 0 && b > 0 && (a == b || a == 1 || b == 1));
    let output = fits.then(|| pairs().map(|(a, b)| a.max(b)).collect());
    let expected = Expected { output, arguments: vec![wide(&a), wide(&b)], longest: 0 };
    let (op, shape) = match mul {
        true => ("mul", Mul::new().output_shape(&a, &b)),
        false => ("add", Add::new().output_shape(&a, &b)),
    };
    if expected.shape(op, &shape, profile) {
        let plan = match mul {
            true => Mul::new().activation(activation).plan(profile, &a, &b),
            false => Add::new().activation(activation).plan(profile, &a, &b),
        };
        expected.plan(op, profile, plan);
    }
}

pub fn concat(bytes: &mut Bytes<'_>, profile: &Profile) {
    let (first, axis) = (bytes.shape(), bytes.extent());
    let count = usize::from(bytes.byte() % 6);
    let inputs: Vec<Vec<usize>> = (0..count)
        .map(|_| {
            let mut shape = first.clone();
            if let Some(extent) = shape.get_mut(axis) {
                *extent = bytes.extent();
            }
            bytes.spoil(&mut shape);
            shape
        })
        .collect();
    let shapes: Vec<&[usize]> = inputs.iter().map(|shape| &shape[..]).collect();
    let others = |shape: &[usize]| shape.iter().enumerate().map(|(i, &e)| if i == axis { 1 } else { e }).collect();
    let others: Vec<Vec<usize>> = shapes.iter().map(|shape| others(shape)).collect();
    let fits = !shapes.is_empty()
        && shapes.iter().all(|shape| axis < shape.len() && !shape.contains(&0))
        && others.iter().all(|shape| *shape == others[0]);
    let output = fits.then(|| {
        let mut output = wide(shapes[0]);
        output[axis] = shapes.iter().map(|shape| shape[axis] as i128).sum();
        output
    });
    let expected = Expected { output, arguments: shapes.iter().map(|shape| wide(shape)).collect(), longest: 0 };
    let concat = Concat::new(axis);
    if expected.shape("concat", &concat.output_shape(&shapes), profile) {
        expected.plan("concat", profile, concat.plan(profile, &shapes));
    }
}

pub fn rearrange(bytes: &mut Bytes<'_>, profile: &Profile) {
    let (mut input, choice) = (bytes.shape(), bytes.byte() % 3);
    let (a, b, c) = (bytes.extent(), bytes.step(), bytes.step());
    if choice > 0 {
        input = [&[b, a][..], &bytes.extents::<2>()].concat();
    }
    if choice == 1 {
        input[1] = a.saturating_mul(c).saturating_mul(c);
    }
    bytes.spoil(&mut input);
    let (shape, full) = (wide(&input), !input.contains(&0));
    let of = |output: Option<Vec<i128>>| Expected { output, arguments: vec![shape.clone()], longest: 0 };
    let [wide_b, wide_c] = [b as i128, c as i128];
    match choice {
        0 => {
            let fits = full && shape.get(a).is_some_and(|&extent| wide_c > 0 && wide_b + wide_c <= extent);
            let mut output = shape.clone();
            if let Some(extent) = output.get_mut(a) {
                *extent = wide_c;
            }
            let (expected, narrow) = (of(fits.then_some(output)), Narrow::new(a, b, c));
            if expected.shape("narrow", &narrow.output_shape(&input), profile) {
                expected.plan("narrow", profile, narrow.plan(profile, &input));
            }
        }
        1 => {
            let square = wide_c.saturating_mul(wide_c);
            let fits = full && shape.len() == 4 && square > 0 && shape[1] % square == 0;
            let output = fits.then(|| {
                vec![shape[0], shape[1] / square, shape[2].saturating_mul(wide_c), shape[3].saturating_mul(wide_c)]
            });
            let (expected, shuffle) = (of(output), PixelShuffle::new(c));
            if expected.shape("pixel_shuffle", &shuffle.output_shape(&input), profile) {
                expected.plan("pixel_shuffle", profile, shuffle.plan(profile, &input));
            }
        }
        _ => {
            let factors = [b, c];
            let fits = full && shape.len() == 4 && !factors.contains(&0);
            let output =
                fits.then(|| vec![shape[0], shape[1], volume(&[shape[2], wide_b]), volume(&[shape[3], wide_c])]);
            let (expected, upsample) = (of(output), UpsampleNearest::new(factors));
            if expected.shape("upsample_nearest", &upsample.output_shape(&input), profile) {
                expected.plan("upsample_nearest", profile, upsample.plan(profile, &input));
            }
        }
    }
}
