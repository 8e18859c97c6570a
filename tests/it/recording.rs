//! The rules of recording: what is recorded is what runs, in order, whatever happens between recording and submission.

use ndarray::{ArrayD, IxDyn};
use wgconv::reference::{ConvSpec, conv};
use wgconv::{Conv2d, Error, Gpu, Tensor, ndarray, wgpu};

use crate::common::{assert_exact, integers, open};

fn filled(gpu: &Gpu, shape: &[usize], value: f32) -> Tensor {
    Tensor::from_array(gpu, &ArrayD::from_elem(IxDyn(shape), value)).expect("upload")
}

fn first(tensor: &Tensor) -> f32 {
    *tensor.to_array().expect("read").first().expect("not empty")
}

/// A chain of convolutions is one submission; after the first round nothing is created any more.
#[test]
fn steady_state_creates_nothing_and_submits_once() {
    let gpu = open();
    let x = filled(&gpu, &[1, 8, 12, 12], 1.0);
    let w = filled(&gpu, &[8, 8, 3, 3], 1.0);
    let depthwise = filled(&gpu, &[8, 1, 3, 3], 1.0);
    let round = || {
        let y = Conv2d::new().padding(1).forward(&x, &w, None)?;
        let y = Conv2d::new().padding(1).groups(8).forward(&y, &depthwise, None)?;
        let y = Conv2d::new().padding(1).residual(&x).forward(&y, &w, None)?;
        gpu.wait()?;
        Ok::<_, Error>(y)
    };
    for _ in 0..2 {
        round().expect("warm-up");
    }
    let before = gpu.counters();
    for _ in 0..5 {
        round().expect("round");
    }
    let after = gpu.counters();
    assert_eq!(after.submissions - before.submissions, 5, "one submission a round");
    assert_eq!(
        (after.buffers, after.bind_groups, after.pipelines),
        (before.buffers, before.bind_groups, before.pipelines)
    );
}

/// Nor does a long recording that flushes itself on the way, each output dropped at once.
#[test]
fn a_long_recording_creates_nothing() {
    let gpu = open();
    let (x, w) = (filled(&gpu, &[1, 8, 4, 4], 1.0), filled(&gpu, &[8, 8, 3, 3], 1.0));
    let conv = Conv2d::new().padding(1);
    let record = |count| (0..count).try_for_each(|_| conv.forward(&x, &w, None).map(drop));
    record(2).expect("warm-up");
    gpu.wait().expect("wait");
    let before = gpu.counters();
    record(1200).expect("record");
    gpu.wait().expect("wait");
    let after = gpu.counters();
    assert!(after.submissions > before.submissions + 1);
    assert_eq!(
        (after.buffers, after.bind_groups, after.pipelines),
        (before.buffers, before.bind_groups, before.pipelines)
    );
}

/// A tensor that is dropped gives its buffer to the next one while its own use is still only recorded.
#[test]
fn a_recycled_buffer_does_not_change_what_was_recorded() {
    let gpu = open();
    let w = filled(&gpu, &[1, 1, 1, 1], 2.0);
    let mut results = Vec::new();
    for i in 0..20 {
        let x = filled(&gpu, &[1, 1, 16, 16], i as f32);
        results.push(Conv2d::new().forward(&x, &w, None).expect("record"));
    }
    assert_eq!(gpu.counters().submissions, 0, "nothing was submitted yet");
    for (i, result) in results.iter().enumerate() {
        assert_eq!(first(result), 2.0 * i as f32);
    }
}

/// More dispatches than one submission has parameter slots.
#[test]
fn a_long_recording_flushes_itself() {
    let gpu = open();
    let one = filled(&gpu, &[1, 1, 1, 1], 1.0);
    let add = Conv2d::new();
    let mut y = filled(&gpu, &[1, 1, 2, 2], 0.0);
    for _ in 0..1300 {
        y = add.forward(&y, &one, Some(&one.reshape(&[1]).expect("bias"))).expect("record");
    }
    assert!(gpu.counters().submissions >= 1);
    assert_eq!(first(&y), 1300.0);
}

/// A packed copy of weights is not used once the weights may have changed.
#[test]
fn packed_weights_do_not_go_stale() {
    let gpu = open();
    let x = filled(&gpu, &[1, 16, 8, 8], 1.0);
    let conv = Conv2d::new();
    let w = filled(&gpu, &[16, 16, 1, 1], 1.0);
    assert_eq!(first(&conv.forward(&x, &w, None).expect("first")), 16.0);
    assert_eq!(first(&conv.forward(&x, &w, None).expect("kept")), 16.0);
    // Written as an output.
    let identity = filled(&gpu, &[16, 16, 1, 1], 0.0);
    let three = filled(&gpu, &[16], 3.0);
    let source = filled(&gpu, &[16, 16, 1, 1], 0.0);
    conv.forward_into(&source, &identity, Some(&three), &w).expect("overwrite");
    assert_eq!(first(&conv.forward(&x, &w, None).expect("overwritten")), 48.0);
    // Handed out and written by the caller.
    let w = filled(&gpu, &[16, 16, 1, 1], 1.0);
    assert_eq!(first(&conv.forward(&x, &w, None).expect("first")), 16.0);
    let values = vec![2.0f32; 256];
    gpu.queue().write_buffer(w.buffer().expect("hand out"), 0, bytes(&values));
    assert_eq!(first(&conv.forward(&x, &w, None).expect("written")), 32.0);
    // Promised not to change: the copy made by `prepare` is used.
    let w = conv.prepare(&w, x.shape()).expect("prepare");
    assert_eq!(first(&conv.forward(&x, &w, None).expect("prepared")), 32.0);
}

fn bytes(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// What was recorded before a buffer is handed out reads the old values, what comes after reads the new ones.
#[test]
fn handing_out_a_buffer_flushes_first() {
    let gpu = open();
    let w = filled(&gpu, &[1, 1, 1, 1], 1.0);
    let x = filled(&gpu, &[1, 1, 4, 4], 5.0);
    let before = Conv2d::new().forward(&x, &w, None).expect("record");
    gpu.queue().write_buffer(x.buffer().expect("hand out"), 0, bytes(&[7.0; 16]));
    let after = Conv2d::new().forward(&x, &w, None).expect("record");
    assert_eq!((first(&before), first(&after)), (5.0, 7.0));
}

/// The caller of a wrapped buffer submits before writing it.
#[test]
fn a_wrapped_buffer_is_read_and_written_in_place() {
    let gpu = open();
    let raw = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let x = Tensor::from_buffer(&gpu, raw.clone(), &[1, 1, 4, 4]).expect("wrap");
    let w = filled(&gpu, &[1, 1, 1, 1], 1.0);
    gpu.queue().write_buffer(&raw, 0, bytes(&[1.0; 16]));
    let before = Conv2d::new().forward(&x, &w, None).expect("record");
    gpu.submit().expect("submit before writing");
    gpu.queue().write_buffer(&raw, 0, bytes(&[2.0; 16]));
    let after = Conv2d::new().forward(&x, &w, None).expect("record");
    assert_eq!((first(&before), first(&after)), (1.0, 2.0));
    Conv2d::new().forward_into(&after, &w, Some(&filled(&gpu, &[1], 40.0)), &x).expect("into a wrapped buffer");
    assert_eq!(first(&x), 42.0);

    let small = Tensor::from_buffer(&gpu, raw.clone(), &[1, 1, 5, 4]);
    assert!(matches!(small, Err(Error::Invalid { argument: "buffer", .. })), "{small:?}");
    let usage = wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false };
    let unusable = Tensor::from_buffer(&gpu, gpu.device().create_buffer(&descriptor), &[1, 1, 4, 4]);
    assert!(matches!(unusable, Err(Error::Invalid { argument: "buffer", .. })), "{unusable:?}");
}

/// Work recorded into the caller's encoder runs when the caller submits it, after what was recorded before; its scratch memory is not
/// used by others meanwhile.
#[test]
fn encoding_into_the_callers_encoder() {
    let gpu = open();
    let (x, w) = (integers(&[2, 17, 9, 7], 1, 4), integers(&[19, 17, 3, 3], 2, 3));
    let want = conv(x.view(), w.view(), None, &ConvSpec::new(2)).expect("reference");
    let (xt, wt) = (Tensor::from_array(&gpu, &x).expect("x"), Tensor::from_array(&gpu, &w).expect("w"));
    let identity = filled(&gpu, &[17, 1, 1, 1], 1.0);
    // Recorded, not submitted: encode must submit it first.
    let same = Conv2d::new().groups(17).forward(&xt, &identity, None).expect("record");
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let encoded = Conv2d::new().encode(&mut encoder, &same, &wt, None).expect("encode");
    // Other work of the same shapes comes between and must not get the encoded call's memory.
    for _ in 0..3 {
        let other = Conv2d::new().forward(&filled(&gpu, &[2, 17, 9, 7], 9.0), &wt, None).expect("other");
        other.to_array().expect("read");
    }
    let second = Conv2d::new().encode(&mut encoder, &xt, &wt, None).expect("encode");
    gpu.queue().submit([encoder.finish()]);
    let (y, z) = (encoded.submitted(), second.submitted());
    assert_exact("encoded", &y.to_array().expect("read"), &want);
    assert_exact("encoded second", &z.to_array().expect("read"), &want);
    // An encoder that is given up leaves nothing behind that later calls would find.
    let fresh = Tensor::from_array(&gpu, &w).expect("w");
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    drop(Conv2d::new().encode(&mut encoder, &xt, &fresh, None).expect("encode"));
    drop(encoder);
    let y = Conv2d::new().forward(&xt, &fresh, None).expect("forward");
    assert_exact("after a dropped encoder", &y.to_array().expect("read"), &want);
}

/// A guard that is dropped early keeps its memory from others: the encoder may still be submitted, and would write into what they hold.
#[test]
fn an_encoder_submitted_after_its_guard_is_gone_harms_nobody() {
    let gpu = open();
    let (x, w) = (filled(&gpu, &[2, 17, 9, 7], 1.0), filled(&gpu, &[19, 17, 3, 3], 1.0));
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let encoded = Conv2d::new().encode(&mut encoder, &x, &w, None).expect("encode");
    let shape = encoded.output().shape().to_vec();
    drop(encoded);
    let others: Vec<Tensor> = (0..4).map(|i| filled(&gpu, &shape, i as f32)).collect();
    gpu.submit().expect("submit");
    gpu.queue().submit([encoder.finish()]);
    for (i, other) in others.iter().enumerate() {
        assert!(other.to_array().expect("read").iter().all(|&v| v == i as f32), "tensor {i} was overwritten");
    }
}

/// Buffers handed out are filled even where the last `Gpu` goes before anything was submitted.
#[test]
fn dropping_the_last_gpu_submits() {
    let gpu = open();
    let (device, queue) = (gpu.device().clone(), gpu.queue().clone());
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let raw = device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false });
    {
        let out = Tensor::from_buffer(&gpu, raw.clone(), &[1, 1, 4, 4]).expect("wrap");
        let x = filled(&gpu, &[1, 1, 4, 4], 6.0);
        Conv2d::new().forward_into(&x, &filled(&gpu, &[1, 1, 1, 1], 7.0), None, &out).expect("record");
    }
    drop(gpu);
    let gpu = Gpu::from_wgpu(device, queue).expect("same device");
    assert_eq!(first(&Tensor::from_buffer(&gpu, raw, &[1, 1, 4, 4]).expect("wrap")), 42.0);
}

#[test]
fn async_read_needs_no_executor_of_ours() {
    let gpu = open();
    let x = filled(&gpu, &[1, 1, 4, 4], 3.0);
    let y = Conv2d::new().forward(&x, &filled(&gpu, &[1, 1, 1, 1], 2.0), None).expect("record");
    let array = pollster::block_on(y.to_array_async()).expect("read");
    assert_eq!(array[[0, 0, 3, 3]], 6.0);
    // A read that is given up half-way leaves the device usable.
    drop(y.to_array_async());
    assert_eq!(first(&y), 6.0);
}

#[test]
fn a_lost_device_is_an_error_and_a_new_one_works() {
    let gpu = open();
    let x = filled(&gpu, &[1, 1, 4, 4], 3.0);
    let w = filled(&gpu, &[1, 1, 1, 1], 2.0);
    let y = Conv2d::new().forward(&x, &w, None).expect("record");
    gpu.device().destroy();
    let errors = [
        y.to_array().map(|_| ()),
        Conv2d::new().forward(&x, &w, None).and_then(|y| y.to_array()).map(|_| ()),
        Tensor::from_array(&gpu, &ArrayD::<f32>::zeros(IxDyn(&[4]))).map(|_| ()),
        gpu.wait(),
    ];
    assert!(errors.iter().all(|e| matches!(e, Err(Error::DeviceLost { .. }))), "{errors:?}");
    let gpu = open();
    let y = Conv2d::new().forward(&filled(&gpu, &[1, 1, 4, 4], 3.0), &filled(&gpu, &[1, 1, 1, 1], 2.0), None);
    assert_eq!(first(&y.expect("a new device")), 6.0);
}

#[test]
fn the_owner_of_a_device_tells_of_its_loss() {
    let owned = open();
    let gpu = Gpu::from_wgpu(owned.device().clone(), owned.queue().clone()).expect("wrap");
    let x = filled(&gpu, &[1, 1, 4, 4], 3.0);
    gpu.notify_lost("unplugged");
    let result = x.to_array();
    assert!(matches!(&result, Err(Error::DeviceLost { reason }) if reason == "unplugged"), "{result:?}");
}

#[test]
fn threads_share_one_gpu() {
    let gpu = open();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let gpu = gpu.clone();
            scope.spawn(move || {
                let w = filled(&gpu, &[16, 16, 1, 1], 1.0);
                for i in 0..10 {
                    let x = filled(&gpu, &[1, 16, 4, 4], (t * 10 + i) as f32);
                    let y = Conv2d::new().forward(&x, &w, None).expect("record");
                    assert_eq!(first(&y), 16.0 * (t * 10 + i) as f32);
                }
            });
        }
    });
}
