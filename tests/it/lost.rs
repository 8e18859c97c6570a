//! Devices that are lost, at every step of a call: an error, no panic, no hang, nothing left behind; and others go on.

use std::sync::mpsc;
use std::time::Duration;

use wgconv::{Conv2d, Error, Fault, Gpu, Result, Tensor, wgpu};

use crate::calls::{CALLS, Call, bits, named, on};
use crate::common::{gpu, open};
use crate::faults::{Watched, held};

/// What becomes of work that may hang.
#[track_caller]
fn within_a_minute<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|error| panic!("{what}: {error}"))
}

#[track_caller]
fn is_lost<T: std::fmt::Debug>(what: &str, result: Result<T>) {
    assert!(matches!(result, Err(Error::DeviceLost { .. })), "{what}: {result:?}");
}

/// Loses the device before every step in turn, each time another device; how many there were.
fn every_step(name: &'static str, call: Call, open: impl Fn() -> Gpu) -> u64 {
    let want = bits(&call(&gpu()).expect(name));
    for n in 0.. {
        let lost = open();
        lost.fault(Some(Fault::DeviceLost(n)));
        let (result, lost) = within_a_minute(name, move || (call(&lost), lost));
        if lost.fault(None) == 0 {
            assert_eq!(bits(&result.expect(name)), want, "{name}");
            return n;
        }
        is_lost(&format!("{name}, step {n}"), result);
        is_lost(name, call(&lost));
        is_lost(name, lost.wait());
        drop(lost);
        if n % 8 == 0 {
            assert_eq!(bits(&call(&open()).expect("a new device")), want, "{name} on a new device");
        }
    }
    unreachable!()
}

#[test]
fn a_device_is_lost_before_every_step() {
    let mut steps = 0;
    for (name, call) in named(&["conv2d subgroup", "prepare", "warm_up", "encode", "chain with submissions between"]) {
        let lost = every_step(name, call, open);
        assert!(lost > 5, "{name}: {lost}");
        println!("| {name} | {lost} |");
        steps += lost;
    }
    let guarded = || {
        let builder = Gpu::builder().adapter_from_env().cache(wgconv::Cache::Off);
        builder.guarded(true).build_blocking().expect("an adapter")
    };
    let lost = every_step("upload and read", CALLS[0].1, guarded);
    println!("| upload and read, guarded | {lost} |\n| all | {} |", steps + lost);
}

/// Before the call, for every operator.
#[test]
fn every_operator_on_a_lost_device() {
    let gpu = open();
    gpu.device().destroy();
    for &(name, call) in CALLS {
        is_lost(name, call(&gpu));
    }
}

#[test]
fn a_device_is_lost_between_calls() {
    let stages = ["before the upload", "after it", "recorded", "submitted", "run", "read"];
    for (stage, what) in stages.into_iter().enumerate() {
        let watched = Watched::open(false);
        let gpu = watched.gpu.clone();
        let lost = gpu.clone();
        let at = move |now| {
            if now == stage {
                lost.device().destroy();
                lost.notify_lost("destroyed");
            }
        };
        let work = move || -> Result<()> {
            at(0);
            let (x, w) = (on(&gpu, &[1, 8, 8, 8], 1)?, on(&gpu, &[8, 8, 3, 3], 2)?);
            at(1);
            let y = Conv2d::new().padding(1).forward(&x, &w, None)?;
            at(2);
            gpu.submit()?;
            at(3);
            let z = Conv2d::new().padding(1).forward(&y, &w, None)?;
            gpu.wait()?;
            at(4);
            z.to_array()?;
            at(5);
            let kept = z.reshape(&[8, 64])?;
            drop((x, w, y, z));
            kept.to_array().map(|_| ())
        };
        is_lost(what, within_a_minute(what, work));
        let Watched { instance, gpu } = watched;
        is_lost(what, gpu.trim());
        drop(gpu);
        assert_eq!(held(&instance), [0; 3], "{what}: something is left");
    }
}

/// A read that is under way ends, with its values or as an error, under any executor and in whatever order.
#[test]
fn a_device_is_lost_while_a_read_is_under_way() {
    for delay in [0, 0, 1, 5, 20] {
        let what = format!("{delay} ms after the read began");
        let result = within_a_minute(&what, move || {
            let gpu = open();
            let (x, w) = (on(&gpu, &[4, 16, 32, 32], 1).expect("x"), on(&gpu, &[16, 16, 3, 3], 2).expect("w"));
            let y = Conv2d::new().forward(&x, &w, None).expect("forward");
            let mut read = Box::pin(y.to_array_async());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let first = read.as_mut().poll(&mut context);
            std::thread::sleep(Duration::from_millis(delay));
            gpu.device().destroy();
            let result = match first {
                std::task::Poll::Ready(result) => result,
                std::task::Poll::Pending => pollster::block_on(read),
            };
            is_lost("afterwards", y.to_array());
            result
        });
        match result {
            Ok(array) => assert!(array.iter().all(|v| v.is_finite()), "{what}"),
            error => is_lost(&what, error),
        }
    }
}

/// A device of somebody else's of whose loss nobody tells: some error all the same, and an end.
#[test]
fn a_loss_that_nobody_tells_of() {
    let watched = Watched::open(false);
    watched.gpu.device().on_uncaptured_error(std::sync::Arc::new(|_| ()));
    let x = on(&watched.gpu, &[1, 8, 8, 8], 1).expect("x");
    watched.gpu.device().destroy();
    let read = x.clone();
    let result = within_a_minute("a read", move || read.to_array());
    assert!(result.is_err(), "{result:?}");
    let gpu = watched.gpu.clone();
    let result = within_a_minute("an async read", move || pollster::block_on(x.to_array_async()));
    assert!(result.is_err(), "{result:?}");
    for (name, call) in named(&["conv2d direct", "encode", "warm_up"]) {
        let gpu = gpu.clone();
        let result = within_a_minute(name, move || call(&gpu));
        assert!(result.is_err(), "{name}: {result:?}");
    }
}

/// Two devices at once: neither takes the other's tensors, both compute in turns, and one goes on when the other is lost.
#[test]
fn two_devices_do_not_mix() {
    let (a, b) = (open(), open());
    let shape = [1, 8, 8, 8];
    let of = |gpu: &Gpu| (on(gpu, &shape, 1).expect("x"), on(gpu, &[8, 8, 3, 3], 2).expect("w"));
    let ((xa, wa), (xb, wb)) = (of(&a), of(&b));
    let conv = Conv2d::new().padding(1);
    let refused = |result: Result<Tensor>| assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    refused(conv.forward(&xa, &wb, None));
    refused(conv.forward(&xb, &wa, None));
    refused(conv.clone().residual(&xb).forward(&xa, &wa, None));
    refused(conv.forward_into(&xa, &wa, None, &xb).map(|()| xa.clone()));
    let mut encoder = a.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    refused(conv.encode(&mut encoder, &xa, &wb, None).map(|encoded| encoded.submitted()));
    let (mut ya, mut yb) = (xa.clone(), xb.clone());
    for _ in 0..4 {
        let w1 = (on(&a, &[8, 1, 3, 3], 5).expect("w"), on(&b, &[8, 1, 3, 3], 5).expect("w"));
        ya = conv.clone().groups(8).forward(&ya, &w1.0, None).expect("a");
        yb = conv.clone().groups(8).forward(&yb, &w1.1, None).expect("b");
    }
    let want = bits(&ya.to_array().expect("a"));
    assert_eq!(bits(&yb.to_array().expect("b")), want);
    a.device().destroy();
    is_lost("a", ya.to_array());
    assert_eq!(bits(&yb.to_array().expect("b")), want);
    let yb = conv.forward(&xb, &wb, None).and_then(|y| y.to_array()).expect("b goes on");
    drop((a, ya, xa, wa));
    let c = open();
    let (xc, wc) = of(&c);
    assert_eq!(bits(&conv.forward(&xc, &wc, None).and_then(|y| y.to_array()).expect("c")), bits(&yb));
}
