//! Convolution, deformable and separable convolution and involution: whatever slides a window over zeros or another border.

use wgconv::reference::{BorderMode, ConvSpec, conv_out_shape};
use wgconv::{
    Activation, Border, Conv, ConvKernel, DeformConv2d, DeformKernel, Involution2d, InvolutionKernel, Padding, Profile,
    SeparableConv2d, SeparableKernel,
};

use super::bytes::Bytes;
use super::check::{Expected, bias, volume, wide};

/// Stride, dilation and padding of a window, drawn and as the library takes them.
pub struct Steps<const R: usize> {
    pub stride: [usize; R],
    pub dilation: [usize; R],
    pub padding: Padding<R>,
}

impl<const R: usize> Steps<R> {
    pub fn draw(bytes: &mut Bytes<'_>) -> Self {
        let padding = match bytes.byte() % 8 {
            0 => Padding::Valid,
            1 => Padding::Same,
            2 => Padding::SameLower,
            3 => Padding::Full,
            4 => Padding::Causal,
            5 => Padding::from(bytes.padding()),
            _ => Padding::Explicit(std::array::from_fn(|_| (bytes.padding(), bytes.padding()))),
        };
        Self { stride: bytes.steps(), dilation: bytes.steps(), padding }
    }

    /// Padding at the start and at the end of an axis.
    fn pads(&self, axis: usize, extent: i128, kernel: i128) -> (i128, i128) {
        let (stride, dilation) = (self.stride[axis] as i128, self.dilation[axis] as i128);
        let reach = dilation.saturating_mul(kernel - 1);
        // TensorFlow's rule: as much as `ceil(extent / stride)` windows reach beyond the input.
        let total = match (extent + stride - 1).checked_div(stride) {
            Some(outputs) => ((outputs - 1) * stride).saturating_add(reach).saturating_add(1 - extent).max(0),
            None => 0,
        };
        match self.padding {
            Padding::Same => (total / 2, total - total / 2),
            Padding::SameLower => (total - total / 2, total / 2),
            Padding::Full => (reach, reach),
            Padding::Causal => (reach, 0),
            Padding::Explicit(sides) => (sides[axis].0 as i128, sides[axis].1 as i128),
            _ => (0, 0),
        }
    }

    /// What the CPU reference takes: padding as numbers, where it was drawn so.
    fn explicit(&self) -> Option<Vec<(usize, usize)>> {
        if let Padding::Explicit(sides) = self.padding { Some(sides.to_vec()) } else { None }
    }

    /// PyTorch's output extents, none where there is no window, and the longest padded extent.
    pub fn windows(&self, extents: &[i128], kernel: &[i128], border: Border) -> (Option<Vec<i128>>, i128) {
        let mut longest = 0;
        let mut output = Some(Vec::new());
        for (axis, (&extent, &kernel)) in extents.iter().zip(kernel).enumerate() {
            let (start, end) = self.pads(axis, extent, kernel);
            let padded = extent.saturating_add(start).saturating_add(end);
            longest = padded.max(longest);
            let (stride, dilation) = (self.stride[axis] as i128, self.dilation[axis] as i128);
            let room = padded.saturating_sub(dilation.saturating_mul(kernel - 1)).saturating_sub(1);
            let bordered = match border {
                Border::Reflect => start.max(end) < extent,
                Border::Circular => start.max(end) <= extent,
                _ => true,
            };
            let found = stride > 0 && dilation > 0 && kernel > 0 && room >= 0 && bordered;
            output = output.filter(|_| found).map(|output| [output, vec![room / stride + 1]].concat());
        }
        (output, longest)
    }
}

/// Splits `[a, b, spatial...]` where it has so many spatial axes and is nowhere empty.
pub fn split<const R: usize>(shape: &[usize]) -> Option<([i128; 2], Vec<i128>)> {
    let wide = wide(shape);
    let whole = shape.len() == R + 2 && !shape.contains(&0);
    whole.then(|| ([wide[0], wide[1]], wide[2..].to_vec()))
}

/// Input and weight of a convolution that mostly fit each other, and the number of groups.
fn shapes<const R: usize>(bytes: &mut Bytes<'_>) -> (Vec<usize>, Vec<usize>, usize) {
    let (mut groups, cg, og) = (bytes.step(), bytes.step(), bytes.step());
    let (batch, c_in, c_out) = (bytes.step(), groups.saturating_mul(cg), groups.saturating_mul(og));
    let mut input = [&[batch, c_in][..], &bytes.extents::<R>()].concat();
    let mut weight = [&[c_out, cg][..], &bytes.steps::<R>()].concat();
    bytes.spoil(&mut input);
    bytes.spoil(&mut weight);
    if bytes.byte() > 240 {
        groups = bytes.extent();
    }
    (input, weight, groups)
}

/// The output's shape of a convolution and the longest extent.
fn convolved<const R: usize>(
    (input, weight, groups): (&[usize], &[usize], usize),
    steps: &Steps<R>,
    border: Border,
) -> (Option<Vec<i128>>, i128) {
    let (Some(([batch, c_in], extents)), Some(([c_out, cg], kernel))) = (split::<R>(input), split::<R>(weight)) else {
        return (None, 0);
    };
    let groups = groups as i128;
    let grouped = groups > 0 && c_in % groups == 0 && c_out % groups == 0 && cg.saturating_mul(groups) == c_in;
    let (output, longest) = steps.windows(&extents, &kernel, border);
    (output.filter(|_| grouped).map(|output| [vec![batch, c_out], output].concat()), longest)
}

pub fn activation(bytes: &mut Bytes<'_>) -> Activation {
    bytes.pick(&[Activation::Identity, Activation::Relu, Activation::LeakyRelu(0.1), Activation::Gelu])
}

pub fn conv<const R: usize>(bytes: &mut Bytes<'_>, profile: &Profile) {
    use ConvKernel::*;
    const ALL: [ConvKernel; 9] =
        [Direct, Subgroup, Pointwise, Depthwise, FewChannels, Winograd, WinogradF4, Grouped, Tiled];
    let op = ["conv1d", "conv2d", "conv3d"][R - 1];
    let (input, weight, groups) = shapes::<R>(bytes);
    let steps = Steps::<R>::draw(bytes);
    let border = bytes.pick(&[Border::Zeros, Border::Zeros, Border::Reflect, Border::Replicate, Border::Circular]);
    let conv = Conv::<R>::new().stride(steps.stride).dilation(steps.dilation).padding(steps.padding).groups(groups);
    let conv = conv.border(border).flip_kernel(bytes.flag()).fast_math(bytes.flag()).activation(activation(bytes));
    let (output, longest) = convolved((&input, &weight, groups), &steps, border);
    let channels = output.as_ref().map_or(1, |output| output[1]);
    let output_or_none = output.clone().unwrap_or_default();
    let arguments = vec![wide(&input), wide(&weight), bias(channels, profile), output_or_none];
    let expected = Expected { output, arguments, longest };
    if let Some(pads) = steps.explicit() {
        let border = match border {
            Border::Reflect => BorderMode::Reflect,
            Border::Replicate => BorderMode::Replicate,
            Border::Circular => BorderMode::Circular,
            _ => BorderMode::Zeros,
        };
        let (stride, dilation) = (steps.stride.to_vec(), steps.dilation.to_vec());
        let spec = ConvSpec { stride, dilation, pads, groups, border, flip_kernel: false };
        expected.reference(conv_out_shape(&input, &weight, &spec));
    }
    if expected.shape(op, &conv.output_shape(&input, &weight), profile) {
        let candidates = conv.candidates(profile, &input, &weight);
        expected.plans(op, profile, (candidates, &ALL), |kernel| {
            conv.clone().kernel(kernel.unwrap_or(Auto)).plan(profile, &input, &weight)
        });
    }
}

pub fn deform(bytes: &mut Bytes<'_>, profile: &Profile) {
    let op = "deform_conv2d";
    let (input, weight, groups) = shapes::<2>(bytes);
    let steps = Steps::<2>::draw(bytes);
    let offset_groups = if bytes.byte() < 192 { groups } else { bytes.step() };
    let has_mask = bytes.flag();
    let deform = DeformConv2d::new().stride(steps.stride).dilation(steps.dilation).padding(steps.padding);
    let deform = deform.groups(groups).offset_groups(offset_groups).activation(activation(bytes));
    let (output, longest) = convolved((&input, &weight, groups), &steps, Border::Zeros);
    let each = offset_groups as i128;
    let output = output.filter(|_| each > 0 && wide(&input)[1] % each == 0);
    let mut arguments = vec![wide(&input), wide(&weight)];
    if let Some(output) = &output {
        let weight = wide(&weight);
        let field = |count: i128| {
            let channels = volume(&[count, each, weight[2], weight[3]]);
            vec![output[0], channels, output[2], output[3]]
        };
        let bias = bias(weight[0], profile);
        arguments = vec![wide(&input), field(2), weight.clone(), bias, field(1), output.clone()];
    }
    let expected = Expected { output, arguments, longest };
    if expected.shape(op, &deform.output_shape(&input, &weight), profile) {
        let candidates = deform.candidates(profile, &input, &weight);
        expected.plans(
            op,
            profile,
            (candidates, &[DeformKernel::Direct, DeformKernel::Sliced, DeformKernel::Fused, DeformKernel::FewChannels]),
            |kernel| deform.clone().kernel(kernel.unwrap_or_default()).plan(profile, &input, &weight, has_mask),
        );
    }
}

pub fn involution(bytes: &mut Bytes<'_>, profile: &Profile) {
    use InvolutionKernel::{Direct, Rows, Subgroup};
    let op = "involution2d";
    let (mut groups, cg) = (bytes.step(), bytes.step());
    let [height, width] = bytes.extents();
    let mut input = vec![bytes.step(), groups.saturating_mul(cg), height, width];
    let (kernel, steps) = (bytes.steps::<2>(), Steps::<2>::draw(bytes));
    bytes.spoil(&mut input);
    if bytes.byte() > 240 {
        groups = bytes.extent();
    }
    let windows =
        split::<2>(&input).map(|(head, extents)| (head, steps.windows(&extents, &wide(&kernel), Border::Zeros)));
    let narrow = |size: i128| usize::try_from(size).unwrap_or(usize::MAX);
    // The weight that goes with that, with its six axes or with four.
    let [out_h, out_w] = match &windows {
        Some((_, (Some(output), _))) => [narrow(output[0]), narrow(output[1])],
        _ => bytes.extents(),
    };
    let [kh, kw] = kernel;
    let six = bytes.flag();
    let channels = groups.saturating_mul(kh).saturating_mul(kw);
    let batch = input.first().copied().unwrap_or(1);
    let mut weight = if six { vec![batch, groups, kh, kw, out_h, out_w] } else { vec![batch, channels, out_h, out_w] };
    bytes.spoil(&mut weight);
    let involution = Involution2d::new().stride(steps.stride).dilation(steps.dilation).padding(steps.padding);
    let mut involution = involution.groups(groups).activation(activation(bytes));
    let told = bytes.byte() > 32;
    if told {
        involution = involution.kernel_size(kernel);
    }
    let mut expected = Expected { output: None, arguments: Vec::new(), longest: 0 };
    // Without a size told, a weight of six axes tells another one where it was spoiled.
    let taken = if told { Some(wide(&kernel)) } else { weight.get(2..4).filter(|_| weight.len() == 6).map(wide) };
    if let (Some((head, extents)), Some(kernel)) = (split::<2>(&input), taken) {
        let (output, longest) = steps.windows(&extents, &kernel, Border::Zeros);
        let (groups, weight) = (groups as i128, wide(&weight));
        let fits = |output: &Vec<i128>| {
            let taps = volume(&[groups, kernel[0], kernel[1]]);
            let six = [head[0], groups, kernel[0], kernel[1], output[0], output[1]];
            groups > 0 && head[1] % groups == 0 && (weight == six || weight == [head[0], taps, output[0], output[1]])
        };
        expected.output = output.filter(fits).map(|output| [head.to_vec(), output].concat());
        expected.longest = longest;
        let output = expected.output.clone().unwrap_or_default();
        expected.arguments = vec![wide(&input), weight, vec![head[1]], output];
    }
    if expected.shape(op, &involution.output_shape(&input, &weight), profile) {
        let candidates = involution.candidates(profile, &input, &weight);
        expected.plans(op, profile, (candidates, &[Direct, Rows, Subgroup]), |kernel| {
            involution.clone().kernel(kernel.unwrap_or_default()).plan(profile, &input, &weight)
        });
    }
}

pub fn separable(bytes: &mut Bytes<'_>, profile: &Profile) {
    let op = "separable_conv2d";
    let (batch, channels, outputs) = (bytes.step(), bytes.extent(), bytes.extent());
    let mut input = [&[batch, channels][..], &bytes.extents::<2>()].concat();
    let mut depthwise = [&[channels, 1][..], &bytes.steps::<2>()].concat();
    let mut pointwise = vec![outputs, channels, 1, 1];
    let steps = Steps::<2>::draw(bytes);
    bytes.spoil(&mut input);
    bytes.spoil(&mut depthwise);
    bytes.spoil(&mut pointwise);
    let separable = SeparableConv2d::new().stride(steps.stride).dilation(steps.dilation).padding(steps.padding);
    let separable = separable.activation(activation(bytes)).depthwise_activation(activation(bytes));
    let groups = input.get(1).copied().unwrap_or(0);
    let (between, longest) = convolved((&input, &depthwise, groups), &steps, Border::Zeros);
    let fits = split::<2>(&pointwise).is_some_and(|([_, c], kernel)| c == groups as i128 && kernel == [1, 1]);
    let between = between.filter(|_| fits && depthwise[0] == groups);
    let output = between.clone().map(|mut shape| {
        shape[1] = pointwise[0] as i128;
        shape
    });
    let vector = |shape: &[usize]| bias(shape.first().map_or(1, |&channels| channels as i128), profile);
    let fused = vec![
        wide(&input),
        wide(&depthwise),
        vector(&depthwise),
        wide(&pointwise),
        vector(&pointwise),
        output.clone().unwrap_or_default(),
    ];
    // What lies between is as large as an argument: an error may be due to it, though nothing of it is bound.
    let arguments = [fused, vec![between.clone().unwrap_or_default()]].concat();
    let expected = Expected { output: output.clone(), arguments, longest };
    if !expected.shape(op, &separable.output_shape(&input, &depthwise, &pointwise), profile) {
        return;
    }
    let between = between.unwrap_or_default();
    let parts = [
        Expected {
            output: Some(between.clone()),
            arguments: vec![wide(&input), wide(&depthwise), vector(&depthwise), between.clone()],
            longest,
        },
        Expected {
            output: output.clone(),
            arguments: vec![between, wide(&pointwise), vector(&pointwise), output.unwrap_or_default()],
            longest,
        },
    ];
    let candidates = separable.candidates(profile, &input, &depthwise, &pointwise).expect("candidates");
    for kernel in [SeparableKernel::Auto, SeparableKernel::Unfused, SeparableKernel::Fused] {
        match separable.clone().kernel(kernel).plan(profile, &input, &depthwise, &pointwise) {
            Ok(plans) if plans.len() == 1 => {
                assert!(candidates.contains(&SeparableKernel::Fused), "{op}: fused without being offered");
                plans.into_iter().for_each(|plan| expected.plan(op, profile, Ok(plan)));
            }
            Ok(plans) => {
                let plans = plans.into_iter().zip(&parts);
                plans.for_each(|(plan, part)| part.plan(op, profile, Ok(plan)));
            }
            Err(_) if kernel == SeparableKernel::Fused && !candidates.contains(&kernel) => {}
            Err(error) => expected.plan(op, profile, Err(error)),
        }
    }
}
