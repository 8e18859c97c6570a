//! Many threads on one Gpu, tensors dropped while they are used, reads given up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wgconv::{Cache, Conv2d, Error, Fault, Gpu, Tensor};

use crate::calls::{CALLS, bits, on};
use crate::common::{gpu, next, open};

const SHAPE: [usize; 4] = [1, 8, 8, 8];

/// What every call gives, shapes and bits.
fn wanted() -> Vec<(Vec<usize>, Vec<u32>)> {
    CALLS.iter().map(|(name, call)| bits(&call(&gpu()).expect(name))).collect()
}

#[test]
fn tensors_are_dropped_while_they_are_used() {
    let gpu = open();
    let want = bits(&CALLS[4].1(&gpu).expect("conv"));
    let (w, bias) = (on(&gpu, &[8, 8, 3, 3], 2).expect("w"), on(&gpu, &[8], 3).expect("bias"));
    let conv = Conv2d::new().padding(1);
    let mut results = Vec::new();
    for i in 0..60 {
        let x = on(&gpu, &SHAPE, 1).expect("x");
        let dropped = conv.forward(&x, &w, None).expect("dropped");
        let y = conv.forward(&x, &w, Some(&bias)).expect("kept");
        if i % 3 == 0 {
            gpu.submit().expect("submit");
        }
        drop((x, dropped));
        // Takes the memory of both while the device may still be at it.
        let other = on(&gpu, &SHAPE, 100 + i).expect("other");
        results.push((i, y, other));
    }
    drop((w, bias));
    for (i, y, other) in results {
        assert_eq!(bits(&y.to_array().expect("read")), want, "call {i}");
        assert_eq!(bits(&other.to_array().expect("read")), bits(&crate::common::integers(&SHAPE, 100 + i, 3)));
    }
}

/// A read given up before its first step, while the copy waits or runs, or when the values are there.
#[test]
fn reads_are_given_up() {
    let gpu = open();
    let base = gpu.counters().live_buffers;
    for round in 0..24u64 {
        let tensor = on(&gpu, &SHAPE, round).expect("upload");
        let mut read = Box::pin(tensor.to_array_async());
        if round % 4 > 0 {
            let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(result) = polled {
                assert_eq!(bits(&result.expect("read")), bits(&crate::common::integers(&SHAPE, round, 3)));
                continue;
            }
            std::thread::sleep(Duration::from_millis(round % 4 - 1));
        }
        drop(read);
        if round % 2 == 0 {
            drop(tensor);
        } else {
            assert_eq!(bits(&tensor.to_array().expect("read")), bits(&crate::common::integers(&SHAPE, round, 3)));
        }
        let reused = on(&gpu, &SHAPE, 1000 + round).expect("upload");
        assert_eq!(bits(&reused.to_array().expect("read")), bits(&crate::common::integers(&SHAPE, 1000 + round, 3)));
    }
    gpu.wait().expect("wait");
    gpu.trim().expect("trim");
    assert_eq!(gpu.counters().live_buffers, base);
}

/// What a thread does until the time is over: calls, results that are read later, dropped or given up, submissions, trims. Where memory
/// may run out, an error of that kind is as good as the right result.
fn mixed(gpu: &Gpu, seed: u64, until: Instant, want: &[(Vec<usize>, Vec<u32>)], faults: bool) -> [u64; 2] {
    let mut state = seed;
    let mut kept: Vec<(Tensor, Vec<u32>)> = Vec::new();
    let (mut right, mut failed) = (0, 0);
    while Instant::now() < until {
        let i = (next(&mut state) % CALLS.len() as u64) as usize;
        let seed = next(&mut state) % 1000;
        let result: wgconv::Result<()> = (|| match next(&mut state) % 10 {
            0..=4 => {
                let got = CALLS[i].1(gpu)?;
                assert_eq!(bits(&got), want[i], "{}", CALLS[i].0);
                right += 1;
                Ok(())
            }
            5 => {
                let x = on(gpu, &SHAPE, seed)?;
                drop(x.reshape(&[8, 64])?.to_array_async());
                kept.push((x, bits(&crate::common::integers(&SHAPE, seed, 3)).1));
                Ok(())
            }
            6 => {
                let x = on(gpu, &SHAPE, seed)?;
                let mut read = Box::pin(x.to_array_async());
                let _ = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                Ok(())
            }
            7 => {
                let (x, w) = (on(gpu, &SHAPE, 1)?, on(gpu, &[8, 8, 3, 3], 2)?);
                let y = Conv2d::new().padding(1).forward(&x, &w, None)?;
                drop((x, w));
                let into = CALLS.iter().position(|(name, _)| *name == "forward_into").expect("a call");
                kept.push((y, want[into].1.clone()));
                Ok(())
            }
            8 => {
                while kept.len() > (seed % 5) as usize {
                    let (tensor, want) = kept.swap_remove(seed as usize % kept.len());
                    assert_eq!(bits(&tensor.to_array()?).1, want, "read later");
                    right += 1;
                }
                Ok(())
            }
            _ if seed.is_multiple_of(8) => gpu.trim(),
            // Nothing to do where there are no guards.
            _ if seed % 8 < 4 => gpu.check_guards(),
            _ => gpu.submit(),
        })();
        match result {
            Ok(()) => {}
            Err(Error::OutOfMemory { .. }) if faults => failed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    [right, failed]
}

fn stress(gpu: &Gpu, faults: bool) -> [u64; 2] {
    let want = wanted();
    for (name, call) in CALLS {
        call(gpu).expect(name);
    }
    gpu.wait().expect("wait");
    gpu.trim().expect("trim");
    let base = gpu.counters().live_buffers;
    let until = Instant::now() + Duration::from_millis(1500);
    let (right, failed, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let mut struck = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|seed| {
                let (gpu, want, right, failed) = (gpu.clone(), &want, &right, &failed);
                scope.spawn(move || {
                    let [r, f] = mixed(&gpu, seed, until, want, faults);
                    right.fetch_add(r, Ordering::Relaxed);
                    failed.fetch_add(f, Ordering::Relaxed);
                })
            })
            .collect();
        if faults {
            scope.spawn(|| {
                let mut state = 77;
                while !over.load(Ordering::Relaxed) && Instant::now() < until {
                    let n = next(&mut state) % 50;
                    gpu.fault(Some(Fault::OutOfMemory(n..n + 1 + next(&mut state) % 3)));
                    std::thread::sleep(Duration::from_millis(3));
                    struck += gpu.fault(None);
                }
            });
        }
        for thread in threads {
            let ended = thread.join();
            over.store(true, Ordering::Relaxed);
            ended.expect("a thread");
        }
    });
    gpu.wait().expect("wait");
    gpu.trim().expect("trim");
    assert_eq!(gpu.counters().live_buffers, base, "something is left");
    let [right, failed] = [right, failed].map(AtomicU64::into_inner);
    println!("8 threads, {struck} steps failed: {right} results right, {failed} errors");
    assert!(!faults || struck > 5, "{struck}");
    [right, failed]
}

#[test]
fn eight_threads_mix_everything() {
    let [right, failed] = stress(&open(), false);
    assert!(right > 20 && failed == 0, "{right}, {failed}");
}

/// Checks give memory back to the pool while others take it and read its guards.
#[test]
fn eight_threads_check_guards() {
    let builder = Gpu::builder().adapter_from_env().cache(Cache::Off);
    let gpu = builder.guarded(true).build_blocking().expect("an adapter");
    let [right, failed] = stress(&gpu, false);
    assert!(right > 20 && failed == 0, "{right}, {failed}");
    gpu.check_guards().expect("nothing beside the data");
}

/// An error reaches whoever ran into it; nobody else gets a wrong value for it.
#[test]
fn eight_threads_while_memory_runs_out() {
    let [right, failed] = stress(&open(), true);
    assert!(right > 20 && failed > 0, "{right}, {failed}");
}
