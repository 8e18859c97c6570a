//! Problems larger than a dispatch or a binding.

use ndarray::{ArrayD, IxDyn, s};
use wgconv::reference::{ConvSpec, conv, conv_at};
use wgconv::{Cache, Conv2d, ConvKernel, ConvTranspose2d, Error, Gpu, Profile, Tensor, ndarray, wgpu};

use crate::calls::{CALLS, bits};
use crate::common::{assert_exact, builder, gpu, integers, next, open, upload};

/// Compares seeded elements, and the corners, with the reference.
#[track_caller]
fn check_some(x: &ArrayD<f32>, w: &ArrayD<f32>, y: &ArrayD<f32>, spec: &ConvSpec) {
    let mut state = 7;
    for i in 0..300 {
        let pick = |extent: usize, state: &mut u64| match i {
            0 => 0,
            1 => extent - 1,
            _ => (next(state) % extent as u64) as usize,
        };
        let index: Vec<usize> = y.shape().iter().map(|&extent| pick(extent, &mut state)).collect();
        let want = conv_at(x.view(), w.view(), None, spec, &index).expect("reference");
        assert_eq!(f64::from(y[IxDyn(&index)]), want, "at {index:?}");
    }
    assert!(y.iter().all(|v| v.is_finite()));
}

/// 70,000 workgroups and more are folded into the axes of a dispatch.
#[test]
fn more_workgroups_than_an_axis_holds() {
    let (x, w) = (integers(&[1, 1, 2100, 2136], 1, 4), integers(&[1, 1, 1, 1], 2, 3));
    for kernel in [ConvKernel::Direct, ConvKernel::Auto] {
        let conv = Conv2d::new().kernel(kernel);
        let plan = conv.plan(gpu().profile(), x.shape(), w.shape()).expect("plan");
        if kernel == ConvKernel::Direct {
            assert!(plan.to_string().contains("70088 x") || plan.to_string().contains("x 70088"), "{plan}");
        }
        let y = conv.forward(&upload(&x), &upload(&w), None).and_then(|y| y.to_array()).expect("forward");
        check_some(&x, &w, &y, &ConvSpec::new(2));
    }
}

/// One image of 144 MB, in and out: over the 128 MiB that a binding holds here. Input channels, output channels and groups are cut.
#[test]
fn a_single_image_over_the_binding() {
    let (x, w) = (integers(&[1, 9, 2000, 2000], 1, 3), integers(&[9, 3, 1, 1], 2, 3));
    let conv = Conv2d::new().groups(3);
    let y = conv.forward(&upload(&x), &upload(&w), None).and_then(|y| y.to_array()).expect("forward");
    check_some(&x, &w, &y, &ConvSpec { groups: 3, ..ConvSpec::new(2) });
}

/// A single plane of 138 MB is cut along its rows.
#[test]
fn a_single_plane_over_the_binding() {
    let (x, w) = (integers(&[1, 1, 6000, 5751], 1, 3), integers(&[1, 1, 3, 1], 2, 3));
    let conv = Conv2d::new().padding([(1, 1), (0, 0)]);
    let y = conv.forward(&upload(&x), &upload(&w), None).and_then(|y| y.to_array()).expect("forward");
    check_some(&x, &w, &y, &ConvSpec { pads: vec![(1, 1), (0, 0)], ..ConvSpec::new(2) });
}

/// Of such a plane a single row of the output reads a single row: no more of it is bound.
#[test]
fn one_row_of_a_plane_over_the_binding() {
    let (x, w) = (integers(&[1, 1, 6000, 5751], 1, 3), integers(&[1, 1, 1, 1], 2, 3));
    let want = x.slice(s![.., .., ..1, ..]).mapv(|x| x * w[[0, 0, 0, 0]]).into_dyn();
    let (x, w) = (upload(&x), upload(&w));
    let conv = Conv2d::new().stride([6000, 1]);
    let up = ConvTranspose2d::new().padding([(0, 5999), (0, 0)]);
    for y in [conv.forward(&x, &w, None), up.forward(&x, &w, None)] {
        assert_eq!(y.and_then(|y| y.to_array()).expect("forward"), want);
    }
}

/// A batch over the binding is cut between images, on every kernel that takes the problem.
#[test]
fn a_batch_over_the_binding() {
    let (x, w) = (integers(&[5, 8, 1000, 900], 1, 3), integers(&[8, 8, 1, 1], 2, 3));
    let (xt, wt) = (upload(&x), upload(&w));
    for kernel in Conv2d::new().candidates(gpu().profile(), x.shape(), w.shape()).expect("candidates") {
        let y = Conv2d::new().kernel(kernel).forward(&xt, &wt, None).and_then(|y| y.to_array()).expect("forward");
        check_some(&x, &w, &y, &ConvSpec::new(2));
    }
    let w = integers(&[8, 1, 3, 3], 2, 3);
    let conv = Conv2d::new().groups(8).padding(1).kernel(ConvKernel::Depthwise);
    let y = conv.forward(&xt, &upload(&w), None).and_then(|y| y.to_array()).expect("forward");
    check_some(&x, &w, &y, &ConvSpec { groups: 8, pads: vec![(1, 1); 2], ..ConvSpec::new(2) });
}

/// Images that start anywhere between two alignments, where the input, the output or both are over the binding.
#[test]
fn batches_are_cut_at_any_image() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 32 << 10, ..wgpu::Limits::default() };
    let builder = Gpu::builder().adapter_from_env().cache(Cache::Off).limits(limits);
    let gpu = builder.guarded(true).build_blocking().expect("an adapter");
    // Channels, groups and kernel of a convolution of five images of 13 x 24.
    for (channels, groups, k) in [
        ([4, 14], 1, 1),
        ([14, 4], 1, 1),
        ([12, 12], 1, 1),
        ([12, 12], 3, 1),
        ([3, 14], 1, 3),
        ([5, 15], 5, 3),
        ([16, 16], 4, 3),
    ] {
        let [c_in, c_out] = channels;
        let (x, w) = (integers(&[5, c_in, 13, 24], 1, 3), integers(&[c_out, c_in / groups, k, k], 2, 3));
        let spec = ConvSpec { groups, pads: vec![(k / 2, k / 2); 2], ..ConvSpec::new(2) };
        let want = conv(x.view(), w.view(), None, &spec).expect("reference");
        let conv = Conv2d::new().groups(groups).padding(k / 2);
        let [xt, wt] = [&x, &w].map(|array| Tensor::from_array(&gpu, array).expect("upload"));
        for kernel in conv.candidates(gpu.profile(), x.shape(), w.shape()).expect("candidates") {
            let y = conv.clone().kernel(kernel).forward(&xt, &wt, None).and_then(|y| y.to_array()).expect("forward");
            assert_exact(&format!("{channels:?} {groups} {k} {kernel:?}"), &y, &want);
        }
        gpu.check_guards().expect("nothing beside the data");
    }
}

/// A dispatch of more work than the adapter's watchdog may wait for is cut, in the plan.
#[test]
fn long_dispatches_are_cut() {
    let flops = 2 * 64 * 64 * 9 * (1u64 << 20);
    let (x, w) = ([1, 64, 1 << 10, 1 << 10], [64, 64, 3, 3]);
    let profile = gpu().profile().clone();
    for kernel in Conv2d::new().padding(1).candidates(&profile, &x, &w).expect("candidates") {
        let plan = |profile: &Profile| Conv2d::new().padding(1).kernel(kernel).plan(profile, &x, &w).expect("plan");
        let least = plan(&Profile { max_work: u64::MAX, ..profile.clone() }).dispatches() as u64;
        for max_work in [profile.max_work, flops / 7, flops / 1000] {
            let cut = plan(&Profile { max_work, ..profile.clone() }).dispatches() as u64;
            // Winograd has fewer operations than the direct way, and in slices of its scratch memory less work a dispatch than is allowed.
            let enough = least.max(flops / 6 / max_work);
            assert!(cut >= enough, "{kernel:?}, {max_work}: {cut} dispatches of {enough}, not cut {least}");
        }
    }
}

#[test]
fn cut_dispatches_give_the_same_bits() {
    // Submissions are counted, of which others have none on these two.
    let (whole, cut) = (open(), builder().max_work(500).build_blocking().expect("an adapter"));
    let mut cut_calls = 0;
    for (name, call) in CALLS {
        let run = |gpu: &Gpu| {
            let before = gpu.counters().submissions;
            let values = call(gpu).expect(name);
            (bits(&values), gpu.counters().submissions - before)
        };
        let ((want, once), (got, parts)) = (run(&whole), run(&cut));
        assert_eq!(got, want, "{name}");
        cut_calls += usize::from(parts > once);
    }
    // Others have a single workgroup, which cannot be cut.
    assert!(cut_calls * 2 > CALLS.len(), "{cut_calls} of {} calls were cut", CALLS.len());
}

/// Three tensors of almost 2 GiB. Not with the others, since it takes 12 GiB of memory: `cargo xtask test --long` runs it.
#[test]
#[ignore = "takes 12 GiB of memory"]
fn tensors_of_two_gibibytes() {
    let side = (gpu().profile().max_buffer.min((1 << 31) - (1 << 20)) / 4 / (1 << 15)) as usize;
    let x = ArrayD::from_shape_fn(IxDyn(&[1, 1, side, 1 << 15]), |i| ((i[2] * 7 + i[3] * 3) % 11) as f32 - 5.0);
    let w = integers(&[1, 1, 3, 1], 2, 3);
    let xt = upload(&x);
    assert!(x.len() as u64 * 12 > 4 << 30, "three of {} elements", x.len());
    // The input again as the residual, so that nothing but indices is different.
    let conv = Conv2d::new().padding([(1, 1), (0, 0)]).residual(&xt);
    let y = conv.forward(&xt, &upload(&w), None).expect("forward");
    drop(conv);
    let y = y.to_array().expect("read") - &x;
    check_some(&x, &w, &y, &ConvSpec { pads: vec![(1, 1), (0, 0)], ..ConvSpec::new(2) });
}

/// What no adapter holds is refused before anything is allocated.
#[test]
fn what_cannot_fit_is_refused() {
    for shape in [vec![1 << 20, 1 << 20], vec![usize::MAX, 2], vec![1 << 31]] {
        let result = Tensor::zeros(&gpu(), &shape);
        assert!(matches!(result, Err(Error::TooLarge { .. })), "{shape:?}: {result:?}");
    }
    let (x, w) = ([1, 1, 1 << 15, 1 << 15], [64, 1, 1, 1]);
    let plan = Conv2d::new().output_shape(&x, &w);
    assert!(matches!(plan, Err(Error::TooLarge { argument: "output", .. })), "{plan:?}");
}
