//! Known layers, sized for two CPU cores: the GPU (recording, submitting and waiting) and the CPU reference.
//!
//! `cargo bench --bench layers -- resnet50` runs those whose name contains the text; `WGCONV_ADAPTER` chooses the adapter.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use wgconv::{Gpu, Tensor};

use layers::common::{Result, open_gpu};
use layers::launch::{Tensors, launch};
use layers::measure::check;
use layers::operation::At;
use layers::table::{Layer, Tier, read_table};

// The table, and what a layer of it means.
#[path = "../examples/layers/main.rs"]
#[allow(dead_code)]
mod layers;

fn bench(criterion: &mut Criterion) {
    let gpu = open_gpu(None).expect("adapter");
    for layer in read_table(None).expect("table").iter().filter(|layer| layer.tier == Tier::Cpu) {
        bench_layer(criterion, layer, gpu.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", layer.name));
    }
}

fn bench_layer(criterion: &mut Criterion, layer: &Layer, gpu: Option<&Gpu>) -> Result<()> {
    let problem = layer.problem()?;
    let arrays = problem.arrays();
    let mut group = criterion.benchmark_group(&layer.name);
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    if let Some(gpu) = gpu {
        let mut ready: Option<(_, Tensors)> = None;
        group.bench_function("gpu", |bencher| {
            // Here and not before: a layer that the filter leaves out must cost nothing.
            let (operator, tensors) = ready.get_or_insert_with(|| {
                let operator = launch(&problem.operation).expect("operator");
                let tensors = Tensors::upload(gpu, &arrays).expect("upload");
                let result = operator.forward(&tensors).and_then(|output: Tensor| output.to_array()).expect("result");
                let kernel = operator.plan(&tensors).expect("plan").kernel();
                let judged = check(&problem, kernel, &arrays, result.as_slice().unwrap_or_default()).expect("check");
                assert!(judged.passed, "{}: {judged:?}", layer.name);
                (operator, tensors)
            });
            bencher.iter(|| {
                let output = operator.forward(tensors).expect("forward");
                gpu.wait().expect("wait");
                output
            });
        });
    }
    group.bench_function("reference", |bencher| {
        bencher.iter(|| problem.operation.reference(&arrays, At::All).expect("reference"));
    });
    group.finish();
    Ok(())
}

criterion_group!(benches, bench);
criterion_main!(benches);
