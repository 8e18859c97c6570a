//! Measures one layer and checks its result.

use std::time::Instant;

use wgconv::Gpu;

use super::common::{Result, median};
use super::compare::{Comparison, compare};
use super::launch::{Launch, Tensors, launch};
use super::operation::{Arrays, At, Operation, SINGLE};
use super::table::{Problem, random};

/// From so many operations on, the reference computes some elements only.
const CHECK_WHOLE: f64 = 10e9;
/// So many elements then.
const SAMPLES: usize = 4096;
/// Calls between the first and those that count.
const WARM_UP: usize = 2;

/// What came out of a layer; times in milliseconds.
pub struct Measurement {
    pub kernel: String,
    pub first_ms: f64,
    /// Median of recording, submitting and waiting.
    pub wall_ms: f64,
    /// Median of the sum over a call's dispatches, where the adapter has timestamps.
    pub kernel_ms: Option<f64>,
    pub check: Option<Comparison>,
}

/// Runs a layer on the GPU: by the kernel of this name, or by each that can take it (`all`), or else by the one that is chosen.
pub fn on_gpu(
    gpu: &Gpu,
    problem: &Problem,
    kernel: Option<&str>,
    repeat: usize,
    with_check: bool,
) -> Result<Vec<Measurement>> {
    // Who names a kernel may have those too that are only taken on request.
    let operation = Operation { fast_math: kernel.is_some(), ..problem.operation.clone() };
    let operator = launch(&operation)?;
    let arrays = problem.arrays();
    let tensors = Tensors::upload(gpu, &arrays)?;
    let Some(wanted) = kernel else {
        return Ok(vec![run(gpu, problem, operator.as_ref(), &arrays, &tensors, repeat, with_check)?]);
    };
    let mut measurements = vec![];
    for candidate in operator.candidates(&tensors)? {
        if wanted == "all" || candidate.plan(&tensors)?.kernel() == wanted {
            measurements.push(run(gpu, problem, candidate.as_ref(), &arrays, &tensors, repeat, with_check)?);
        }
    }
    Ok(measurements)
}

fn run(
    gpu: &Gpu,
    problem: &Problem,
    operator: &dyn Launch,
    arrays: &Arrays,
    tensors: &Tensors,
    repeat: usize,
    with_check: bool,
) -> Result<Measurement> {
    let kernel = operator.plan(tensors)?.kernel().to_string();
    gpu.wait()?;
    let call = || -> Result<f64> {
        let start = Instant::now();
        let _output = operator.forward(tensors)?;
        gpu.wait()?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let first_ms = call()?;
    for _ in 0..WARM_UP {
        call()?;
    }
    let mut walls = (0..repeat).map(|_| call()).collect::<Result<Vec<f64>>>()?;
    let mut kernels = Vec::new();
    for _ in 0..repeat {
        let times = gpu.time_kernels(|| operator.forward(tensors).map(drop))?;
        if times.is_empty() {
            break;
        }
        kernels.push(times.iter().map(|time| time.nanoseconds).sum::<f64>() / 1e6);
    }
    let check = if with_check {
        // Over a tensor of NaN, so that what is not written shows.
        let output =
            wgconv::Tensor::from_slice(gpu, &problem.output, &vec![f32::NAN; problem.output.iter().product()])?;
        operator.forward_into(tensors, &output)?;
        Some(check(problem, &kernel, arrays, output.to_array()?.as_slice().unwrap_or_default())?)
    } else {
        None
    };
    // What this layer needed is of no use to the next.
    gpu.trim()?;
    let kernel_ms = (!kernels.is_empty()).then(|| median(&mut kernels));
    Ok(Measurement { kernel, first_ms, wall_ms: median(&mut walls), kernel_ms, check })
}

/// Runs a layer on the CPU reference, once.
pub fn on_reference(problem: &Problem) -> Result<Measurement> {
    let arrays = problem.arrays();
    let start = Instant::now();
    problem.operation.reference(&arrays, At::All)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    Ok(Measurement { kernel: "reference".into(), first_ms: ms, wall_ms: ms, kernel_ms: None, check: None })
}

/// Compares a kernel's result in f32 with the reference: all of it, or seeded elements where that would take too long.
pub fn check(problem: &Problem, kernel: &str, arrays: &Arrays, got: &[f32]) -> Result<Comparison> {
    let mut state = 5;
    let sampled: Vec<usize> = match problem.flops > CHECK_WHOLE {
        true => (0..SAMPLES).map(|_| (random(&mut state) % got.len().max(1) as u64) as usize).collect(),
        false => Vec::new(),
    };
    let at = if sampled.is_empty() { At::All } else { At::Some(&sampled) };
    let got: Vec<f64> = match at {
        At::All => got.iter().map(|&value| f64::from(value)).collect(),
        At::Some(flat) => flat.iter().map(|&i| f64::from(got[i])).collect(),
    };
    let want = problem.operation.reference(arrays, at)?;
    let bound = problem.operation.magnitude(arrays, kernel, at)?.bound(SINGLE);
    Ok(compare(&got, &want, &bound, &problem.output, |i| sampled.get(i).copied().unwrap_or(i)))
}
