//! Kernels of dense, grouped and depthwise convolution.

use wgconv::{AdapterClass, Border, Conv, Conv2d, Conv3d, ConvKernel, Padding, Profile};

use super::{discrete, small, software};

fn offered<const R: usize>(options: &Conv<R>, profile: &Profile, x: &[usize], w: &[usize]) -> Vec<ConvKernel> {
    options.candidates(profile, x, w).expect("a good problem")
}

/// Whether the kernel is offered for each of these, as is said of it.
#[track_caller]
fn check<const R: usize, const N: usize>(
    kernel: ConvKernel,
    profile: &Profile,
    cases: &[(bool, Conv<R>, [usize; N], [usize; N])],
) {
    for (fits, options, x, w) in cases {
        let list = offered(options, profile, x, w);
        assert_eq!(list.contains(&kernel), *fits, "{x:?} {w:?} {options:?}: {list:?}");
    }
}

fn conv2d(groups: usize, padding: impl Into<Padding<2>>) -> Conv2d {
    Conv2d::new().groups(groups).padding(padding)
}

/// Padding of one in a plane, and so much of its depth.
fn conv3d(groups: usize, depth: (usize, usize), stride: usize) -> Conv3d {
    Conv3d::new().groups(groups).padding([depth, (1, 1), (1, 1)]).stride([stride, 1, 1])
}

/// Along a row alone.
const ROW: [(usize, usize); 2] = [(0, 0), (1, 1)];
/// Only behind the last row.
const BEHIND: [(usize, usize); 2] = [(0, 1), (0, 0)];

#[test]
fn depthwise() {
    let kernel = ConvKernel::Depthwise;
    for profile in [software(), discrete()] {
        check(
            kernel,
            &profile,
            &[
                (true, conv2d(8, 1), [1, 8, 9, 9], [8, 1, 3, 3]),
                (true, conv2d(8, 1), [1, 8, 9, 9], [16, 1, 3, 3]),
                (false, conv2d(4, 1), [1, 8, 9, 9], [8, 2, 3, 3]),
                (true, conv2d(4, 0).border(Border::Reflect), [1, 4, 9, 9], [4, 1, 3, 3]),
                (false, conv2d(4, 1).border(Border::Reflect), [1, 4, 9, 9], [4, 1, 3, 3]),
                (false, conv2d(4, BEHIND).border(Border::Circular), [1, 4, 9, 9], [4, 1, 3, 3]),
                // A stride that is never taken, and one under a kernel of a single row.
                (true, conv2d(4, 0).stride([1, 2]), [1, 4, 3, 20], [4, 1, 3, 3]),
                (true, conv2d(4, 0).stride([1, 2]), [1, 4, 9, 20], [4, 1, 1, 3]),
                (false, conv2d(4, 0).stride([1, 2]), [1, 4, 9, 20], [4, 1, 3, 3]),
            ],
        );
        check(
            kernel,
            &profile,
            &[
                (true, conv3d(8, (0, 0), 1), [1, 8, 1, 9, 9], [8, 1, 1, 3, 3]),
                (true, conv3d(8, (0, 1), 2), [1, 8, 1, 9, 9], [8, 1, 1, 3, 3]),
                (false, conv3d(8, (0, 1), 1), [1, 8, 1, 9, 9], [8, 1, 1, 3, 3]),
                (false, conv3d(8, (1, 0), 2), [1, 8, 1, 9, 9], [8, 1, 1, 3, 3]),
                (false, conv3d(8, (0, 0), 2), [1, 8, 2, 9, 9], [8, 1, 1, 3, 3]),
                (false, conv3d(8, (0, 1), 1), [1, 8, 1, 9, 9], [8, 1, 2, 3, 3]),
            ],
        );
        for (h, w) in (1..=8).flat_map(|h| (1..=8).map(move |w| (h, w))) {
            let fits = [(1, 3), (1, 5), (1, 7), (3, 3), (5, 5), (7, 7)].contains(&(h, w));
            check(kernel, &profile, &[(fits, conv2d(4, 0), [1, 4, 9, 9], [4, 1, h, w])]);
        }
    }
}

/// Outputs `dilation / common` apart are those of the stride `stride / common` without a dilation.
#[test]
fn depthwise_strides_with_dilations() {
    let common = |a: usize, b: usize| {
        (1..=a.min(b)).rev().find(|d| a.is_multiple_of(*d) && b.is_multiple_of(*d)).expect("1 divides")
    };
    for case in 0..256 {
        let [s_h, s_w, d_h, d_w] = [64, 16, 4, 1].map(|place| 1 + case / place % 4);
        let (h, w) = (s_h / common(s_h, d_h), s_w / common(s_w, d_w));
        let options = conv2d(4, 0).stride([s_h, s_w]).dilation([d_h, d_w]);
        check(ConvKernel::Depthwise, &software(), &[(h == w && w <= 2, options, [1, 4, 20, 20], [4, 1, 3, 3])]);
    }
}

#[test]
fn depthwise_within_a_window() {
    check(
        ConvKernel::Depthwise,
        &small(),
        &[
            (true, conv2d(1, ROW), [9, 1, 1, 956], [1, 1, 1, 3]),
            (false, conv2d(1, ROW), [1, 1, 1, 957], [1, 1, 1, 3]),
            (true, conv2d(1, ROW), [1, 1, 1, 478], [2, 1, 1, 3]),
            (false, conv2d(1, ROW), [1, 1, 1, 479], [2, 1, 1, 3]),
            (false, conv2d(1, 0), [1, 1, 1, 957], [1, 1, 1, 7]),
            (true, conv2d(341, ROW), [1, 341, 1, 1], [341, 1, 1, 3]),
            (false, conv2d(342, ROW), [1, 342, 1, 1], [342, 1, 1, 3]),
        ],
    );
}

#[test]
fn grouped() {
    let kernel = ConvKernel::Grouped;
    for profile in [software(), discrete()] {
        check(
            kernel,
            &profile,
            &[
                (true, conv2d(4, 1), [1, 16, 9, 9], [8, 4, 3, 3]),
                (true, conv2d(2, 1), [1, 32, 9, 9], [8, 16, 3, 3]),
                (false, conv2d(2, 1), [1, 34, 9, 9], [8, 17, 3, 3]),
                (true, conv2d(4, 1), [1, 8, 9, 9], [8, 2, 3, 3]),
                (false, conv2d(8, 1), [1, 8, 9, 9], [16, 1, 3, 3]),
                (false, conv2d(1, 1), [1, 4, 9, 9], [8, 4, 3, 3]),
                (false, conv2d(4, 1), [1, 8, 9, 9], [4, 2, 3, 3]),
                (false, conv2d(4, 1).dilation([2, 1]), [1, 16, 9, 9], [8, 4, 3, 3]),
                (true, conv2d(4, 0).border(Border::Reflect), [1, 16, 9, 9], [8, 4, 3, 3]),
                (false, conv2d(4, 1).border(Border::Reflect), [1, 16, 9, 9], [8, 4, 3, 3]),
                (true, conv2d(4, 1).stride(2), [1, 16, 9, 9], [8, 4, 3, 3]),
                (false, conv2d(4, 1).stride(3), [1, 16, 9, 9], [8, 4, 3, 3]),
                (false, conv2d(4, 1).stride([1, 2]), [1, 16, 9, 9], [8, 4, 3, 3]),
                // A stride that is never taken.
                (true, conv2d(4, 0).stride([1, 2]), [1, 16, 3, 9], [8, 4, 3, 3]),
            ],
        );
        check(
            kernel,
            &profile,
            &[
                (true, conv3d(4, (0, 0), 1), [1, 16, 1, 9, 9], [8, 4, 1, 3, 3]),
                (true, conv3d(4, (0, 1), 2), [1, 16, 1, 9, 9], [8, 4, 1, 3, 3]),
                (false, conv3d(4, (0, 1), 1), [1, 16, 1, 9, 9], [8, 4, 1, 3, 3]),
                (false, conv3d(4, (1, 0), 2), [1, 16, 1, 9, 9], [8, 4, 1, 3, 3]),
                (false, conv3d(4, (0, 0), 2), [1, 16, 2, 9, 9], [8, 4, 1, 3, 3]),
                (false, conv3d(4, (0, 1), 1), [1, 16, 1, 9, 9], [8, 4, 2, 3, 3]),
            ],
        );
        for (h, w) in (1..=5).flat_map(|h| (1..=5).map(move |w| (h, w))) {
            let fits = w == 3 && (h == 1 || h == 3);
            check(kernel, &profile, &[(fits, conv2d(4, 0), [1, 16, 9, 9], [8, 4, h, w])]);
        }
    }
    check(
        kernel,
        &small(),
        &[
            (true, conv2d(2, ROW), [9, 4, 1, 239], [4, 2, 1, 3]),
            (false, conv2d(2, 0), [1, 4, 1, 240], [4, 2, 1, 3]),
            (true, conv2d(2, ROW), [1, 4, 1, 119], [8, 2, 1, 3]),
            (false, conv2d(2, ROW), [1, 4, 1, 120], [8, 2, 1, 3]),
            (true, conv2d(2, ROW), [1, 32, 1, 3], [20, 16, 1, 3]),
            (false, conv2d(2, ROW), [1, 32, 1, 3], [22, 16, 1, 3]),
        ],
    );
}

#[test]
fn few_channels() {
    let kernel = ConvKernel::FewChannels;
    check(
        kernel,
        &software(),
        &[
            (true, conv2d(1, 1), [1, 4, 9, 9], [16, 4, 3, 3]),
            (false, conv2d(1, 1), [1, 5, 9, 9], [16, 5, 3, 3]),
            (true, conv2d(2, 1), [1, 8, 9, 9], [16, 4, 3, 3]),
            (true, conv2d(1, 1).dilation([2, 1]), [1, 3, 9, 9], [16, 3, 3, 3]),
            (false, conv2d(1, 1).dilation([1, 2]), [1, 3, 9, 9], [16, 3, 3, 3]),
            (true, conv2d(1, 1).stride([3, 2]), [1, 3, 9, 9], [16, 3, 3, 3]),
            (false, conv2d(1, 1).stride([1, 3]), [1, 3, 9, 9], [16, 3, 3, 3]),
            (true, conv2d(1, 0).border(Border::Circular), [1, 3, 9, 9], [16, 3, 3, 3]),
            (false, conv2d(1, 1).border(Border::Circular), [1, 3, 9, 9], [16, 3, 3, 3]),
        ],
    );
    check(
        kernel,
        &software(),
        &[
            (true, conv3d(1, (0, 0), 1), [1, 3, 1, 9, 9], [16, 3, 1, 3, 3]),
            (false, conv3d(1, (0, 1), 2), [1, 3, 1, 9, 9], [16, 3, 1, 3, 3]),
            (false, conv3d(1, (1, 0), 2), [1, 3, 1, 9, 9], [16, 3, 1, 3, 3]),
            (false, conv3d(1, (0, 0), 2), [1, 3, 2, 9, 9], [16, 3, 1, 3, 3]),
            (false, conv3d(1, (0, 0), 1), [1, 3, 2, 9, 9], [16, 3, 2, 3, 3]),
        ],
    );
    for (h, w) in (1..=4).flat_map(|h| (1..=8).map(move |w| (h, w))) {
        check(kernel, &software(), &[([3, 5, 7].contains(&w), conv2d(1, 0), [1, 3, 9, 9], [16, 3, h, w])]);
    }
    let lanes = [(None, false), (Some(2), false), (Some(128), false)].into_iter();
    for (subgroup, fits) in lanes.chain([4, 8, 16, 32, 64].map(|lanes| (Some(lanes), true))) {
        let profile = Profile { subgroup, ..software() };
        for kernel in [kernel, ConvKernel::Subgroup] {
            check(kernel, &profile, &[(fits, conv2d(1, 1), [1, 3, 9, 9], [16, 3, 3, 3])]);
        }
    }
    for (max_invocations, fits) in [(32, true), (31, false)] {
        let profile = Profile { subgroup: Some(32), max_invocations, ..software() };
        for kernel in [kernel, ConvKernel::Subgroup] {
            check(kernel, &profile, &[(fits, conv2d(1, 1), [1, 3, 9, 9], [16, 3, 3, 3])]);
        }
    }
    check(
        kernel,
        &small(),
        &[
            (true, conv2d(1, ROW), [9, 1, 1, 956], [1, 1, 1, 3]),
            (false, conv2d(1, 0), [1, 1, 1, 957], [1, 1, 1, 3]),
            (true, conv2d(1, ROW), [1, 1, 1, 478], [2, 1, 1, 3]),
            (false, conv2d(1, ROW), [1, 1, 1, 479], [2, 1, 1, 3]),
            // Packed weights: 63 and 65 taps of 16 channels, those of each group rounded up.
            (true, conv2d(1, 0), [1, 1, 9, 7], [1, 1, 9, 7]),
            (false, conv2d(1, 0), [1, 1, 13, 5], [1, 1, 13, 5]),
            (true, conv2d(2, 0), [1, 2, 10, 3], [2, 1, 10, 3]),
            (false, conv2d(2, 0), [1, 2, 11, 3], [2, 1, 11, 3]),
            (true, conv2d(1, 0), [1, 4, 5, 3], [16, 4, 5, 3]),
            (false, conv2d(1, 0), [1, 4, 5, 3], [17, 4, 5, 3]),
        ],
    );
}

/// A tile of sixteen output channels leads where three quarters of it are full.
#[test]
fn few_channels_lead_where_tiles_are_full() {
    for outputs in 1..=64 {
        let first = offered(&conv2d(1, 1), &software(), &[1, 3, 32, 32], &[outputs, 3, 3, 3])[0];
        let full = outputs * 4 >= outputs.div_ceil(16) * 16 * 3;
        assert_eq!(first == ConvKernel::FewChannels, full, "{outputs}: {first:?}");
    }
}

#[test]
fn winograd() {
    let f2 = ConvKernel::Winograd;
    let x = [1, 8, 9, 9];
    check(
        f2,
        &software(),
        &[
            (true, conv2d(1, 1), x, [8, 8, 3, 3]),
            (true, conv2d(2, 1), x, [8, 4, 3, 3]),
            (false, conv2d(1, 1), [1, 6, 9, 9], [8, 6, 3, 3]),
            (false, conv2d(1, 1), x, [8, 8, 3, 1]),
            (false, conv2d(1, 1), x, [8, 8, 1, 3]),
            (false, conv2d(1, 1), x, [8, 8, 5, 3]),
            (false, conv2d(1, 1).stride([1, 2]), x, [8, 8, 3, 3]),
            (false, conv2d(1, 1).stride([2, 1]), x, [8, 8, 3, 3]),
            (false, conv2d(1, 1).dilation([2, 1]), x, [8, 8, 3, 3]),
            (true, conv2d(1, 0).border(Border::Replicate), x, [8, 8, 3, 3]),
            (false, conv2d(1, 1).border(Border::Replicate), x, [8, 8, 3, 3]),
        ],
    );
    check(
        f2,
        &software(),
        &[
            (true, conv3d(1, (0, 0), 1), [1, 8, 1, 9, 9], [8, 8, 1, 3, 3]),
            (false, conv3d(1, (0, 1), 2), [1, 8, 1, 9, 9], [8, 8, 1, 3, 3]),
            (false, conv3d(1, (1, 0), 2), [1, 8, 1, 9, 9], [8, 8, 1, 3, 3]),
            (false, conv3d(1, (0, 0), 2), [1, 8, 2, 9, 9], [8, 8, 1, 3, 3]),
            (false, conv3d(1, (1, 1), 1), [1, 8, 1, 9, 9], [8, 8, 3, 3, 3]),
        ],
    );
    check(f2, &discrete(), &[(false, conv2d(1, 1), x, [8, 8, 3, 3])]);
    let f4 = ConvKernel::WinogradF4;
    let fast = conv2d(1, 1).fast_math(true);
    check(f4, &software(), &[(true, fast, x, [8, 8, 3, 3]), (false, conv2d(1, 1), x, [8, 8, 3, 3])]);
}

#[test]
fn pointwise_where_the_input_can_be_read_as_it_lies() {
    let x = [1, 8, 6, 6];
    check(
        ConvKernel::Pointwise,
        &software(),
        &[
            (true, conv2d(1, 0), x, [8, 8, 1, 1]),
            (true, conv2d(2, 0), x, [8, 4, 1, 1]),
            (false, conv2d(4, 0), x, [8, 2, 1, 1]),
            (false, conv2d(1, 0), [1, 8, 5, 5], [8, 8, 1, 1]),
            (false, conv2d(1, 0), [1, 6, 6, 6], [8, 6, 1, 1]),
            (false, conv2d(1, 0), x, [8, 8, 1, 3]),
            (false, conv2d(1, ROW), x, [8, 8, 1, 3]),
            (false, conv2d(1, 0).stride([1, 2]), x, [8, 8, 1, 1]),
            // As many outputs as inputs, but of other inputs.
            (false, conv2d(1, [(1, 0), (0, 0)]).stride([2, 1]), [1, 8, 1, 8], [8, 8, 1, 1]),
            (false, conv2d(1, [(6, 5), (0, 0)]).stride([3, 1]), x, [8, 8, 1, 1]),
            (false, conv2d(1, [(0, 6), (0, 0)]).stride([2, 1]), x, [8, 8, 1, 1]),
            (false, conv2d(1, 1).border(Border::Reflect), x, [8, 8, 1, 1]),
        ],
    );
    check(ConvKernel::Pointwise, &discrete(), &[(false, conv2d(1, 0), x, [8, 8, 1, 1])]);
}

#[test]
fn the_order_by_rule() {
    use ConvKernel::{Depthwise, Direct, FewChannels, Grouped, Pointwise, Subgroup, Tiled, Winograd, WinogradF4};
    let order = |profile: &Profile, options: Conv2d, x: [usize; 4], w: [usize; 4]| offered(&options, profile, &x, &w);
    let (wide, narrow) = ([1, 64, 28, 28], [1, 4, 28, 28]);
    assert_eq!(order(&software(), conv2d(1, 1), wide, [64, 64, 3, 3]), [Winograd, Subgroup, Direct, Tiled]);
    assert_eq!(
        order(&software(), conv2d(1, 1).fast_math(true), wide, [64, 64, 3, 3]),
        [WinogradF4, Winograd, Subgroup, Direct, Tiled]
    );
    assert_eq!(
        order(&software(), conv2d(1, 1), narrow, [5, 4, 3, 3]),
        [Subgroup, Winograd, Direct, FewChannels, Tiled]
    );
    assert_eq!(order(&software(), conv2d(1, 0), wide, [64, 64, 1, 1]), [Pointwise, Subgroup, Direct, Tiled]);
    assert_eq!(order(&software(), conv2d(1, 0), wide, [4, 64, 1, 1]), [Pointwise, Subgroup, Direct, Tiled]);
    assert_eq!(order(&software(), conv2d(1, 0), wide, [3, 64, 1, 1]), [Direct, Pointwise, Subgroup]);
    assert_eq!(order(&software(), conv2d(64, 1), wide, [64, 1, 3, 3])[..2], [Depthwise, Direct]);
    assert_eq!(order(&software(), conv2d(16, 1), wide, [64, 4, 3, 3])[0], Grouped);
    assert_eq!(order(&discrete(), conv2d(1, 1), wide, [64, 64, 3, 3]), [Tiled, Direct]);
    assert_eq!(order(&discrete(), conv2d(1, 1), wide, [16, 64, 3, 3]), [Tiled, Direct]);
    assert_eq!(order(&discrete(), conv2d(1, 1), wide, [15, 64, 3, 3]), [Direct, Tiled]);
    assert_eq!(order(&discrete(), conv2d(1, 1), wide, [3, 64, 3, 3]), [Direct]);
    let integrated = Profile { class: AdapterClass::Integrated, ..discrete() };
    assert_eq!(order(&integrated, conv2d(1, 1), wide, [64, 64, 3, 3]), [Tiled, Direct]);
}
