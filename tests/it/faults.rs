//! Memory that runs out at every step of every operator: an error and no panic, nothing left behind, and the same call works afterwards.
//! `cargo test --test it faults:: -- --nocapture` prints how many faults there were.

use ndarray::{ArrayD, IxDyn};
use wgconv::{Cache, Conv2d, Error, Fault, Gpu, Tensor, ndarray, wgpu};

use crate::calls::{CALLS, Call, bits, named, on};
use crate::common::gpu;

/// The adapter under test on an instance of its own, which knows what there is on it.
pub struct Watched {
    pub instance: wgpu::Instance,
    pub gpu: Gpu,
}

impl Watched {
    /// Errors that reach no scope go to wgpu's handler, which panics.
    pub fn open(guarded: bool) -> Self {
        let shared = gpu();
        let backends = wgpu::Backends::all() - wgpu::Backends::NOOP;
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends;
        let instance = wgpu::Instance::new(descriptor);
        let adapters = pollster::block_on(instance.enumerate_adapters(backends));
        let wanted = shared.adapter_info();
        let same = |a: &wgpu::Adapter| a.get_info().name == wanted.name && a.get_info().backend == wanted.backend;
        let adapter = adapters.into_iter().find(same).expect("the adapter under test");
        let descriptor = wgpu::DeviceDescriptor {
            required_features: shared.device().features(),
            required_limits: shared.device().limits(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
        let gpu = Gpu::builder().cache(Cache::Off).guarded(guarded).wrap(device, queue).expect("wrap");
        Self { instance, gpu }
    }

    /// Buffers, bind groups and query sets that somebody still holds.
    pub fn held(&self) -> [usize; 3] {
        held(&self.instance)
    }

    /// The same once everything that can go is gone, with the buffers that the Gpu counts.
    fn rest(&self) -> ([usize; 3], u64) {
        self.gpu.wait().expect("wait");
        self.gpu.trim().expect("trim");
        (self.held(), self.gpu.counters().live_buffers)
    }
}

pub fn held(instance: &wgpu::Instance) -> [usize; 3] {
    let report = instance.generate_report().expect("native").hub;
    [&report.buffers, &report.bind_groups, &report.query_sets].map(|registry| registry.num_kept_from_user)
}

#[derive(Default, Debug)]
struct Tally {
    /// Steps that failed.
    struck: u64,
    /// Calls that gave the error.
    errors: u64,
    /// Calls that found memory at the second try.
    survived: u64,
}

/// Shape and bits.
type Wanted = (Vec<usize>, Vec<u32>);

/// One call with a fault; whether it went through because nothing struck.
fn once(watched: &Watched, call: &(&str, Call, Wanted), (n, forever): (u64, bool), tally: &mut Tally) -> bool {
    let (name, call, want) = call;
    watched.gpu.fault(Some(Fault::OutOfMemory(n..if forever { u64::MAX } else { n + 1 })));
    let result = call(&watched.gpu);
    let struck = watched.gpu.fault(None);
    tally.struck += struck;
    match result {
        Ok(got) => {
            assert!(struck == 0 || !forever, "{name}, step {n}: fine without memory");
            assert_eq!(&bits(&got), want, "{name}, step {n}, {struck} struck");
            tally.survived += u64::from(struck > 0);
        }
        Err(Error::OutOfMemory { .. }) if struck > 0 => tally.errors += 1,
        Err(error) => panic!("{name}, step {n}, {struck} struck: {error}"),
    }
    struck == 0
}

/// All steps, while kernels are compiled and once they are; memory gone for good and for one step.
fn every_step(watched: &Watched, (name, call): (&'static str, Call)) -> Tally {
    let (mut tally, base) = (Tally::default(), watched.rest());
    let wanted = (name, call, bits(&call(&gpu()).expect(name)));
    let (mut n, mut pipelines) = (0, watched.gpu.counters().pipelines);
    while !once(watched, &wanted, (n, true), &mut tally) {
        // What was compiled is no step any more: back by its layout and pipeline.
        let compiled = watched.gpu.counters().pipelines - pipelines;
        n = (n + 1).saturating_sub(2 * compiled);
        pipelines += compiled;
        assert_eq!(watched.rest(), base, "{name}, cold, step {n}: something is left");
    }
    for forever in [true, false] {
        for n in 0.. {
            let done = once(watched, &wanted, (n, forever), &mut tally);
            assert_eq!(watched.rest(), base, "{name}, step {n}: something is left");
            let again = call(&watched.gpu).unwrap_or_else(|error| panic!("{name} after step {n}: {error}"));
            assert_eq!(bits(&again), wanted.2, "{name} after step {n}");
            if done {
                break;
            }
        }
    }
    println!("| {name} | {} | {} | {} |", tally.struck, tally.errors, tally.survived);
    tally
}

#[test]
fn memory_runs_out_at_every_step_of_every_operator() {
    let watched = Watched::open(false);
    assert!(watched.held()[0] >= 2, "wgpu counts what there is");
    println!("| call | steps failed | calls with the error | calls that found memory at the second try |");
    let mut sum = Tally::default();
    for &call in CALLS {
        let tally = every_step(&watched, call);
        assert!(tally.errors > 3 && tally.survived > 1, "{}: {tally:?}", call.0);
        sum = Tally {
            struck: sum.struck + tally.struck,
            errors: sum.errors + tally.errors,
            survived: sum.survived + tally.survived,
        };
    }
    println!("| all {} | {} | {} | {} |", CALLS.len(), sum.struck, sum.errors, sum.survived);
    let Watched { instance, gpu } = watched;
    drop(gpu);
    assert_eq!(held(&instance), [0; 3]);
}

#[test]
fn memory_runs_out_between_guards() {
    let watched = Watched::open(true);
    for call in named(&["conv2d direct", "encode"]) {
        every_step(&watched, call);
    }
    watched.gpu.check_guards().expect("nothing beside the data");
}

fn zeros(gpu: &Gpu, shape: &[usize]) -> Tensor {
    Tensor::from_array(gpu, &ArrayD::<f32>::zeros(IxDyn(shape))).expect("upload")
}

/// What others have recorded outlives a submission that finds no memory.
#[test]
fn what_is_recorded_outlives_a_submission_that_fails() {
    let watched = Watched::open(false);
    let gpu = &watched.gpu;
    let (x, w) = (on(gpu, &[1, 4, 5, 5], 1).expect("x"), on(gpu, &[4, 4, 3, 3], 2).expect("w"));
    let want = Conv2d::new().forward(&x, &w, None).and_then(|y| y.to_array()).expect("forward");
    let x = on(gpu, &[1, 4, 5, 5], 1).expect("x");
    let y = Conv2d::new().forward(&x, &w, None).expect("forward");
    for _ in 0..3 {
        gpu.fault(Some(Fault::OutOfMemory(0..u64::MAX)));
        let submitted = gpu.submit();
        assert!(matches!(submitted, Err(Error::OutOfMemory { .. })), "{submitted:?}");
        assert_eq!(gpu.fault(None), 1);
    }
    drop((x, w));
    let others: Vec<_> = (0..4).map(|_| zeros(gpu, &[1, 4, 5, 5])).collect();
    assert_eq!(bits(&y.to_array().expect("read")), bits(&want));
    drop(others);
}

/// An error of the application's own, on a device that it shares, comes to light once and takes nothing with it.
#[test]
fn what_is_recorded_outlives_an_error_of_somebody_else() {
    let gpu = crate::common::open();
    let y =
        Conv2d::new().forward(&on(&gpu, &[1, 1, 3, 3], 1).expect("x"), &on(&gpu, &[1, 1, 3, 3], 2).expect("w"), None);
    let y = y.expect("forward");
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::MAP_WRITE;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 3, usage, mapped_at_creation: false };
    drop(gpu.device().create_buffer(&descriptor));
    assert!(matches!(gpu.submit(), Err(Error::Device { .. })));
    let dot: f32 = (&crate::common::integers(&[9], 1, 3) * &crate::common::integers(&[9], 2, 3)).sum();
    assert_eq!(y.to_array().expect("read").iter().copied().collect::<Vec<_>>(), [dot]);
}

/// A submission that the device refuses takes what is recorded with it, so that nothing may be read afterwards as if it were there.
#[test]
fn a_refused_submission_is_not_passed_over() {
    let gpu = crate::common::open();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let raw =
        gpu.device().create_buffer(&wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false });
    let mine = Tensor::from_buffer(&gpu, raw.clone(), &[1, 1, 4, 4]).expect("wrap");
    let one = on(&gpu, &[1, 1, 1, 1], 4).expect("one");
    let other = Conv2d::new().forward(&zeros(&gpu, &[1, 1, 4, 4]), &one, None).expect("forward");
    let y = Conv2d::new().forward(&mine, &one, None).expect("forward");
    raw.destroy();
    assert!(matches!(gpu.submit(), Err(Error::Device { .. })));
    assert!(matches!(other.to_array(), Err(Error::Device { .. })), "it was never computed");
    assert!(matches!(y.to_array(), Err(Error::Device { .. })));
    let again = Gpu::from_wgpu(gpu.device().clone(), gpu.queue().clone()).expect("the same device");
    assert_eq!(zeros(&again, &[5]).to_array().expect("read").sum(), 0.0);
}

/// Memory of an encoded call's arguments goes to nobody else before the encoder is submitted.
#[test]
fn arguments_of_an_encoder_that_waits_are_kept() {
    let gpu = crate::common::open();
    let shape = [1, 4, 5, 5];
    let conv = Conv2d::new();
    let upload = |seed| on(&gpu, &shape, seed).expect("upload");
    let (x, w) = (upload(1), on(&gpu, &[4, 4, 3, 3], 2).expect("w"));
    let want = conv.forward(&x, &w, None).and_then(|y| y.to_array()).expect("forward");
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let first = conv.encode(&mut encoder, &x, &w, None).expect("encode");
    let second = conv.encode(&mut encoder, &x, &w, None).expect("encode");
    drop((x, w));
    let others: Vec<_> = (3..9).flat_map(|seed| [upload(seed), on(&gpu, &[4, 4, 3, 3], seed).expect("w")]).collect();
    gpu.wait().expect("others are uploaded");
    gpu.queue().submit([encoder.finish()]);
    for encoded in [first, second] {
        assert_eq!(bits(&encoded.submitted().to_array().expect("read")), bits(&want));
    }
    drop(others);
}

/// The one module of the library with unsafe code, each use with its reason.
#[test]
fn unsafe_code_is_in_one_module() {
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).expect("a source file");
            let uses = source.matches("unsafe {").count() + source.matches("unsafe fn").count();
            if uses > 0 || source.contains("allow(unsafe_code)") {
                let reasons = source.matches("// SAFETY: ").count();
                found.push((path.file_name().expect("a name").to_owned(), uses, reasons));
            }
        }
    }
    assert_eq!(found, [("pipeline_cache.rs".into(), 1, 1)]);
}
