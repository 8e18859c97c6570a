//! Kernels of transposed and deformable convolution, involution and linear layers.

use wgconv::fuzzing::{Access, Slot, steps};
use wgconv::{
    AdapterClass, ConvTranspose2d, ConvTransposeKernel, DeformConv2d, DeformKernel, Involution2d, InvolutionKernel,
    Linear, LinearKernel, Profile,
};

use super::{discrete, small, software};

#[test]
fn transposed() {
    use ConvTransposeKernel::{Direct, Subgroup};
    let offered = |options: &ConvTranspose2d, profile: &Profile, x: [usize; 4], w: [usize; 4]| {
        options.candidates(profile, &x, &w).expect("a good problem")
    };
    let double = ConvTranspose2d::new().stride(2).padding(1);
    let of = |x: [usize; 4], w: [usize; 4]| offered(&double, &software(), x, w);
    assert_eq!(offered(&double, &discrete(), [1, 8, 6, 6], [8, 8, 4, 4]), [Direct]);
    assert_eq!(of([1, 8, 6, 6], [8, 8, 4, 4]), [Subgroup, Direct]);
    // A tile of output channels, or a block of input channels, that is half empty.
    assert_eq!(of([1, 8, 6, 6], [8, 5, 4, 4]), [Subgroup, Direct]);
    assert_eq!(of([1, 8, 6, 6], [8, 4, 4, 4]), [Direct, Subgroup]);
    assert_eq!(of([1, 3, 6, 6], [3, 8, 4, 4]), [Subgroup, Direct]);
    assert_eq!(of([1, 2, 6, 6], [2, 8, 4, 4]), [Direct, Subgroup]);
    // A part of the output for each of the stride's phases, none of them empty.
    for (cut, list) in [(1, vec![Subgroup, Direct]), (2, vec![Direct])] {
        let pads = [[(cut, 0), (0, 0)], [(0, 0), (0, cut)]];
        for (pads, stride, x) in [(pads[0], [5, 1], [1, 8, 2, 6]), (pads[1], [1, 5], [1, 8, 6, 2])] {
            let options = ConvTranspose2d::new().stride(stride).padding(pads);
            assert_eq!(offered(&options, &software(), x, [8, 8, 1, 1]), list, "{options:?}");
        }
    }
    // The copy in blocks and the output within a window, each image by itself; and the weights, packed in tiles of eight.
    let one = ConvTranspose2d::new();
    let of = |x: [usize; 4], w: [usize; 4]| offered(&one, &small(), x, w).contains(&Subgroup);
    assert!(of([9, 1, 1, 239], [1, 1, 1, 1]) && !of([1, 1, 1, 240], [1, 1, 1, 1]));
    assert!(of([9, 4, 1, 239], [4, 4, 1, 1]) && !of([1, 4, 1, 240], [4, 4, 1, 1]));
    assert!(of([9, 1, 1, 119], [1, 8, 1, 1]) && !of([1, 1, 1, 120], [1, 8, 1, 1]));
    assert!(of([1, 4, 1, 2], [4, 8, 1, 32]) && !of([1, 4, 1, 2], [4, 8, 1, 33]));
}

#[test]
fn deformable() {
    use DeformKernel::{Direct, FewChannels, Fused, Sliced};
    let offered = |(groups, offset_groups): (usize, usize), profile: &Profile, x: [usize; 4], w: [usize; 4]| {
        let options = DeformConv2d::new().padding([w[2] / 2, w[3] / 2]).groups(groups).offset_groups(offset_groups);
        options.candidates(profile, &x, &w).expect("a good problem")
    };
    let x = [1, 16, 9, 9];
    assert_eq!(offered((1, 1), &software(), x, [16, 16, 3, 3]), [Sliced, Direct, Fused]);
    assert_eq!(offered((1, 1), &software(), x, [4, 16, 3, 3]), [Sliced, Direct, Fused]);
    assert_eq!(offered((1, 1), &software(), x, [3, 16, 3, 3]), [Direct, Sliced]);
    assert_eq!(offered((1, 1), &discrete(), x, [16, 16, 3, 3]), [Fused, Direct]);
    assert_eq!(offered((1, 1), &discrete(), x, [15, 16, 3, 3]), [Direct, Fused]);
    let integrated = Profile { class: AdapterClass::Integrated, ..discrete() };
    assert_eq!(offered((1, 1), &integrated, x, [16, 16, 3, 3]), [Fused, Direct]);
    // Up to four input channels a group; one tile of outputs that is not mostly empty.
    for (channels, outputs, list) in [
        (4, 16, vec![FewChannels, Sliced, Direct, Fused]),
        (1, 16, vec![FewChannels, Sliced, Direct]),
        (1, 4, vec![FewChannels, Sliced, Direct]),
        (1, 3, vec![Direct, Sliced, FewChannels]),
        (1, 17, vec![Sliced, Direct, FewChannels]),
        (5, 16, vec![Sliced, Direct]),
    ] {
        assert_eq!(offered((1, 1), &software(), [1, channels, 9, 9], [outputs, channels, 3, 3]), list);
        let (x, w) = ([1, 3 * channels, 9, 9], [3 * outputs, channels, 3, 3]);
        assert_eq!(offered((3, 1), &software(), x, w).contains(&FewChannels), channels < 5);
    }
    assert_eq!(offered((1, 1), &discrete(), [1, 4, 9, 9], [16, 4, 3, 3]), [Fused, Direct]);
    // Subgroups of a size that there are shaders for, in a workgroup.
    for (lanes, max_invocations, offers) in [(8, 8, true), (8, 4, false), (12, 256, false)] {
        let profile = Profile { subgroup: Some(lanes), max_invocations, ..software() };
        let list = offered((1, 1), &profile, [1, 1, 9, 9], [16, 1, 3, 3]);
        assert_eq!(list.contains(&FewChannels), offers, "{lanes} of {max_invocations}");
    }
    // An input that fills more than half of a uniform array lies in one, on adapters that there are such shaders for; a batch of images whole.
    let uniform = |profile: &Profile, x: [usize; 4]| {
        let options = DeformConv2d::new().kernel(FewChannels);
        let plan = options.plan(profile, &x, &[16, x[1], 1, 1], false).expect("a good problem");
        let inputs: Vec<_> = steps(&plan, profile)
            .flat_map(|(_, _, bindings)| bindings)
            .filter(|binding| binding.slot == Slot::Arg(0))
            .map(|binding| (binding.access == Access::Uniform).then_some((binding.offset, binding.size)))
            .collect();
        assert!(inputs.iter().all(|input| *input == inputs[0]), "{plan}");
        inputs[0]
    };
    for (elements, size) in [(2048, None), (2049, Some(16)), (4096, Some(16)), (4097, Some(32)), (8192, Some(32))]
        .into_iter()
        .chain([(8193, Some(64)), (16_384, Some(64)), (16_385, None)])
    {
        assert_eq!(uniform(&software(), [1, 1, 1, elements]), size.map(|size| (0, size << 10)), "{elements}");
    }
    assert_eq!(uniform(&software(), [8, 2, 28, 28]), Some((0, 64 << 10)));
    assert_eq!(uniform(&small(), [60, 1, 7, 7]), Some((0, 16 << 10)), "in many parts");
    let x = [8, 1, 28, 28];
    for (profile, expected) in [
        (Profile { wide_loads: false, ..software() }, None),
        (Profile { class: AdapterClass::Integrated, ..software() }, None),
        (Profile { subgroup: Some(32), ..software() }, None),
        (Profile { subgroup: Some(16), ..software() }, Some((0, 32 << 10))),
        (Profile { max_uniform: 16 << 10, ..software() }, None),
        (Profile { max_buffer: (64 << 10) - 4, ..software() }, None),
    ] {
        assert_eq!(uniform(&profile, x), expected, "{profile:?}");
    }
    // Blocks of four channels, in one offset group each and two thirds of them full.
    for (channels, groups, offset_groups, blocks) in [
        (16, 1, 2, true),
        (16, 4, 2, true),
        (16, 2, 4, true),
        (16, 1, 4, true),
        (16, 1, 8, false),
        (12, 2, 1, true),
        (12, 1, 2, false),
        (12, 4, 1, true),
        (12, 6, 1, false),
        (12, 4, 3, false),
        (18, 2, 3, false),
        (24, 3, 4, false),
        (24, 4, 3, false),
    ] {
        let w = [4 * groups, channels / groups, 3, 3];
        let list = offered((groups, offset_groups), &discrete(), [1, channels, 9, 9], w);
        let aligned = {
            let (cg, cd) = (channels / groups, channels / offset_groups);
            cd % cg == 0 || (cd % 4 == 0 && cg % 4 == 0)
        };
        let full = 3 * (channels / groups) >= 2 * (channels / groups).next_multiple_of(4);
        assert_eq!(aligned && full, blocks, "{channels} {groups} {offset_groups}");
        assert_eq!(list.contains(&Fused), blocks, "{channels} {groups} {offset_groups}: {list:?}");
    }
}

/// Windows of 956 elements: the copy in blocks, which has a vec4 of zeros behind it, and the offsets.
#[test]
fn deformable_within_a_window() {
    let options = DeformConv2d::new();
    let offered = |x: [usize; 4], w: [usize; 4]| options.candidates(&small(), &x, &w).expect("a good problem");
    let sliced = |x: [usize; 4], w: [usize; 4]| offered(x, w).contains(&DeformKernel::Sliced);
    let fused = |x: [usize; 4], w: [usize; 4]| offered(x, w).contains(&DeformKernel::Fused);
    let few = |x: [usize; 4], w: [usize; 4]| offered(x, w).contains(&DeformKernel::FewChannels);
    // Two coordinates a tap and position.
    assert!(sliced([9, 1, 1, 478], [1, 1, 1, 1]) && !sliced([1, 1, 1, 479], [1, 1, 1, 1]));
    // Four channels of 238 positions, and the zeros.
    assert!(sliced([9, 4, 1, 238], [4, 4, 1, 1]) && !sliced([1, 4, 1, 239], [4, 4, 1, 1]));
    // The columns of one tile, 32 positions, under seven taps and under eight.
    assert!(sliced([1, 4, 1, 16], [4, 4, 1, 7]) && !sliced([1, 4, 1, 16], [4, 4, 1, 8]));
    assert!(few([9, 1, 1, 478], [1, 1, 1, 1]) && !few([1, 1, 1, 479], [1, 1, 1, 1]));
    assert!(few([9, 4, 1, 239], [4, 4, 1, 1]) && !few([1, 4, 1, 240], [4, 4, 1, 1]));
    assert!(few([9, 1, 1, 59], [16, 1, 1, 1]) && !few([1, 1, 1, 60], [16, 1, 1, 1]));
    // The weights, packed in tiles of sixteen.
    assert!(few([1, 4, 1, 17], [4, 4, 1, 16]) && !few([1, 4, 1, 17], [4, 4, 1, 17]));
    assert!(fused([9, 4, 1, 238], [4, 4, 1, 1]) && !fused([1, 4, 1, 239], [4, 4, 1, 1]));
    assert!(fused([9, 3, 1, 238], [4, 3, 1, 1]) && !fused([1, 3, 1, 239], [4, 3, 1, 1]));
    assert!(fused([9, 4, 1, 66], [4, 4, 1, 8]) && !fused([1, 4, 1, 67], [4, 4, 1, 8]));
}

/// Columns are lists of (channel, tap) in vec4s where blocks of four channels do not pay.
#[test]
fn columns_take_no_more_than_their_lists() {
    let options = DeformConv2d::new().kernel(DeformKernel::Sliced);
    let plan = options.plan(&software(), &[3, 1, 10, 10], &[8, 1, 3, 3], false).expect("plan");
    assert_eq!(plan.scratch_bytes(), 3 * 64 * 12 * 4, "{plan}");
}

#[test]
fn involution_by_whole_vec4s_and_pairs() {
    let plan = |pad: usize, kernel: InvolutionKernel, width: usize| {
        let options = Involution2d::new().kernel_size(3).padding(pad).kernel(kernel);
        let (x, w) = ([1, 16, 8, width], [1, 1, 3, 3, 6 + 2 * pad, width - 2 + 2 * pad]);
        options.plan(&software(), &x, &w).expect("plan").to_string()
    };
    assert!(plan(1, InvolutionKernel::Rows, 8).contains("VEC=1"));
    assert!(plan(3, InvolutionKernel::Rows, 8).contains("VEC=0"), "windows that start at another column of a vec4");
    for (width, loads) in [(8, "BY=4,RESIDUAL=0,WIDE=1"), (14, "BY=2,RESIDUAL=0,WIDE=1"), (7, "BY=1,RESIDUAL=0,WIDE=0")]
    {
        let plan = plan(1, InvolutionKernel::Subgroup, width);
        assert!(plan.contains(loads), "{plan}");
    }
}

#[test]
fn involution() {
    use InvolutionKernel::{Direct, Rows, Subgroup};
    let offered = |options: &Involution2d, profile: &Profile, x: [usize; 4], w: [usize; 6]| {
        options.candidates(profile, &x, &w).expect("a good problem")
    };
    let three = Involution2d::new().kernel_size(3).padding(1);
    let (x, w) = ([1, 16, 8, 8], [1, 1, 3, 3, 8, 8]);
    assert_eq!(offered(&three, &software(), x, w), [Subgroup, Rows, Direct]);
    assert_eq!(offered(&three, &Profile { subgroup: Some(8), ..discrete() }, x, w), [Rows, Direct, Subgroup]);
    assert_eq!(offered(&three, &discrete(), x, w), [Rows, Direct]);
    for (subgroup, max_invocations, lanes) in [(2, 256, false), (128, 256, false), (32, 32, true), (32, 31, false)] {
        let profile = Profile { subgroup: Some(subgroup), max_invocations, ..software() };
        assert_eq!(offered(&three, &profile, x, w).contains(&Subgroup), lanes, "{subgroup} {max_invocations}");
    }
    // Few channels a group.
    let groups =
        |groups: usize| offered(&three.clone().groups(groups), &software(), [1, 12, 8, 8], [1, groups, 3, 3, 8, 8]);
    assert_eq!(groups(4), [Subgroup, Rows, Direct]);
    assert_eq!(groups(6), [Rows, Direct]);
    // Widths, and steps along a row and across.
    for width in 1..=8 {
        let options = Involution2d::new().kernel_size([2, width]);
        let list = offered(&options, &software(), [1, 16, 8, 8], [1, 1, 2, width, 7, 9 - width]);
        assert_eq!(list.contains(&Rows), [3, 5, 7].contains(&width), "{width}: {list:?}");
    }
    for (stride, dilation, rows) in
        [([1, 2], [1, 1], true), ([3, 2], [2, 1], true), ([1, 3], [1, 1], false), ([1, 1], [1, 2], false)]
    {
        let options = Involution2d::new().kernel_size(3).stride(stride).dilation(dilation);
        let y = [0, 1].map(|a| (14 - 1 - 2 * dilation[a]) / stride[a] + 1);
        let list = offered(&options, &software(), [1, 16, 14, 14], [1, 1, 3, 3, y[0], y[1]]);
        assert_eq!(list.contains(&Rows), rows, "{stride:?} {dilation:?}: {list:?}");
    }
    // The columns of a lane are its own: stride 1, padding at the start of half the kernel, and outputs over all inputs.
    for (pads, stride, own) in [
        ((1, 1), 1, true),
        ((1, 0), 1, true),
        ((0, 1), 1, false),
        ((0, 2), 1, false),
        ((2, 0), 1, false),
        ((1, 1), 2, false),
    ] {
        let options = Involution2d::new().kernel_size(3).padding([(1, 1), pads]).stride([1, stride]);
        let out = (12 + pads.0 + pads.1 - 3) / stride + 1;
        let list = offered(&options, &software(), [1, 16, 8, 12], [1, 1, 3, 3, 8, out]);
        assert_eq!(list.contains(&Subgroup), own, "{pads:?} {stride}: {list:?}");
    }
    let wide = Involution2d::new().kernel_size([3, 3]).padding([(1, 1), (1, 0)]);
    assert!(!offered(&wide, &software(), [1, 16, 8, 13], [1, 1, 3, 3, 8, 12]).contains(&Subgroup), "a column beyond");
    // A single column uses one position of four.
    let column = offered(&three, &software(), [1, 16, 8, 1], [1, 1, 3, 3, 8, 1]);
    assert_eq!(column, [Direct, Rows, Subgroup]);
    let two = offered(&three, &software(), [1, 16, 8, 2], [1, 1, 3, 3, 8, 2]);
    assert_eq!(two, [Subgroup, Rows, Direct]);
}

/// Windows of 956 elements: planes, rows of the kernel for whole planes of the output, and all taps of a group.
#[test]
fn involution_within_a_window() {
    use InvolutionKernel::{Direct, Rows, Subgroup};
    let offered = |channels: usize, [height, width]: [usize; 2]| {
        let options = Involution2d::new().kernel_size([1, 3]).padding([(0, 0), (1, 1)]);
        let (x, w) = ([1, channels, height, width], [1, 1, 1, 3, height, width]);
        options.candidates(&small(), &x, &w).expect("a good problem")
    };
    // 318 * 3 = 954.
    assert_eq!(offered(1, [1, 318]), [Rows, Direct]);
    assert_eq!(offered(1, [1, 319]), [Direct]);
    // 8 channels of 119 are 952; 3 taps of each are fewer.
    assert_eq!(offered(8, [1, 119]), [Subgroup, Rows, Direct]);
    assert_eq!(offered(8, [1, 120]), [Subgroup, Rows, Direct], "all of it within a binding of 1024 elements");
    assert_eq!(offered(8, [1, 128]), [Subgroup, Rows, Direct]);
    assert_eq!(offered(8, [1, 129]), [Rows, Direct]);
}

/// Two output rows a thread where they read the same input rows.
#[test]
fn involution_in_pairs_of_rows() {
    for (stride, dilation, height, pairs) in [(1, 1, 4, true), (1, 1, 3, false), (2, 1, 8, false), (1, 2, 8, false)] {
        let options = Involution2d::new().kernel_size(3).stride([stride, 1]).dilation([dilation, 1]);
        let out = (height - 1 - 2 * dilation) / stride + 1;
        let plan = options.plan(&discrete(), &[1, 16, height, 8], &[1, 1, 3, 3, out, 6]).expect("plan");
        assert_eq!((plan.kernel(), plan.to_string().contains("RH=2")), ("rows", pairs), "{plan}");
    }
}

/// All taps of a group where they are more than its channels.
#[test]
fn involution_of_many_taps_within_a_window() {
    for [high, wide] in [[5, 3], [3, 5]] {
        let options = Involution2d::new().kernel_size([high, wide]).padding([high / 2, wide / 2]);
        let offered = |width: usize| {
            let (x, w) = ([1, 3, 8, width], [1, 1, high, wide, 8, width]);
            options.candidates(&small(), &x, &w).expect("a good problem").contains(&InvolutionKernel::Subgroup)
        };
        // 15 taps of 64 positions are 960, which is over a window but not over the binding of 1024; of 72 they are 1080.
        assert!(offered(8) && !offered(9), "{high} {wide}");
    }
}

#[test]
fn linear() {
    use LinearKernel::{Dot, Subgroup};
    let offered = |profile: &Profile, rows: usize, outputs: usize| {
        Linear::new().candidates(profile, &[rows, 32], &[outputs, 32]).expect("a good problem")
    };
    assert_eq!(offered(&software(), 16, 8), [Subgroup, Dot]);
    assert_eq!(offered(&software(), 15, 8), [Dot, Subgroup]);
    assert_eq!(offered(&software(), 16, 7), [Dot, Subgroup]);
    assert_eq!(offered(&discrete(), 16, 8), [Dot]);
}
