//! What a call costs the host in steady state: checking, planning and recording a small convolution whose output is dropped. The
//! submission and the device's work are not in it.
//!
//! `cargo bench --bench recording`; `WGCONV_ADAPTER` chooses the adapter.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use wgconv::{Conv2d, Gpu, Tensor};

/// Calls between two waits for the device: even of three dispatches each, as Winograd has, fewer than a submission holds.
const CALLS: u32 = 100;

fn bench(criterion: &mut Criterion) {
    let gpu = Gpu::builder().adapter_from_env().build_blocking().expect("adapter");
    let mut group = criterion.benchmark_group("recording");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, weight) in [("3x3", [8, 8, 3, 3]), ("pointwise", [8, 8, 1, 1]), ("depthwise", [8, 1, 3, 3])] {
        let (x, w) = (Tensor::zeros(&gpu, &[1, 8, 4, 4]).expect("x"), Tensor::zeros(&gpu, &weight).expect("w"));
        let conv = Conv2d::new().padding(weight[2] / 2).groups(8 / weight[1]);
        let record = |calls: u32| {
            let start = Instant::now();
            for _ in 0..calls {
                conv.forward(&x, &w, None).expect("forward");
            }
            let took = start.elapsed();
            gpu.wait().expect("wait");
            took
        };
        record(CALLS);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| {
                let rest = calls as u32 % CALLS;
                (0..calls as u32 / CALLS).map(|_| record(CALLS)).sum::<Duration>() + record(rest)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
