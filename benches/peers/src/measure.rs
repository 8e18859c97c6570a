//! One layer on both libraries: the first call of each, then calls in turn, then the two results compared.

use std::time::Instant;

use wgconv::Gpu;

use super::common::Result;
use super::compare::{Comparison, compare};
use super::launch::{Tensors, launch};
use super::operation::{At, SINGLE};
use super::table::{Problem, random};
use super::theirs::{self, Burn};

/// Calls of each between the first and those that count.
const WARM_UP: usize = 3;
/// From so many operations on, the bound of the difference is computed for some elements only.
const COMPARE_WHOLE: f64 = 2e9;
/// So many elements then.
const SAMPLES: usize = 16384;

/// Times of one library's calls, milliseconds.
pub struct Times {
    /// From handing over the operator, with its tensors on the device, to the first result: compilation, packing, tuning.
    pub first: f64,
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

/// What came out of a layer.
pub struct Measurement {
    /// The kernel that wgconv took.
    pub kernel: String,
    pub ours: Times,
    /// Nothing where burn lacks the operator.
    pub theirs: Option<Theirs>,
}

/// burn's times and how far its result is from ours.
pub struct Theirs {
    pub times: Times,
    /// `got` is burn's, `want` is ours.
    pub comparison: Comparison,
    /// What the element is in double precision, where the two disagree.
    pub truth: Option<f64>,
}

/// Measures a layer. Each library in turn records so many calls, submits and waits; a time is one call's share.
pub fn measure(gpu: &Gpu, burn: &Burn, problem: &Problem, repeat: usize, calls: u16) -> Result<Measurement> {
    let arrays = problem.arrays();
    let operator = launch(&problem.operation)?;
    let tensors = Tensors::upload(gpu, &arrays)?;
    let kernel = operator.plan(&tensors)?.kernel().to_string();
    gpu.wait()?;
    let layer = match theirs::lacks(&problem.operation) {
        None => Some(burn.upload(&problem.operation, &arrays)?),
        Some(_) => None,
    };
    burn.wait()?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..1 + WARM_UP + repeat {
        ours.push(time(calls, || Ok(operator.forward(&tensors)?), || Ok(gpu.wait()?))?);
        if let Some(layer) = &layer {
            theirs.push(time(calls, || layer.forward(), || burn.wait())?);
        }
    }
    let theirs = match &layer {
        Some(layer) => {
            let (got, want) = (theirs::read(layer.forward()?)?, operator.forward(&tensors)?.to_array()?);
            let comparison = compare_results(problem, &kernel, &got, want.as_slice().unwrap_or_default())?;
            let truth = if comparison.passed { None } else { Some(truth(problem, &comparison.index)?) };
            Some(Theirs { times: Times::of(theirs), comparison, truth })
        }
        None => None,
    };
    // What this layer needed is of no use to the next.
    drop(tensors);
    gpu.trim()?;
    Ok(Measurement { kernel, ours: Times::of(ours), theirs })
}

fn time<T>(calls: u16, call: impl Fn() -> Result<T>, wait: impl Fn() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    let mut output = call()?;
    for _ in 1..calls {
        output = call()?;
    }
    wait()?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3 / f64::from(calls);
    drop(output);
    Ok(milliseconds)
}

impl Times {
    /// Of the first call, those of the warm-up and those that count.
    fn of(mut calls: Vec<f64>) -> Self {
        let first = calls.first().copied().unwrap_or(f64::NAN);
        let mut counted = calls.split_off((1 + WARM_UP).min(calls.len()));
        counted.sort_by(f64::total_cmp);
        let at = |index: usize| counted.get(index).copied().unwrap_or(f64::NAN);
        Self { first, min: at(0), median: at(counted.len() / 2), max: at(counted.len().saturating_sub(1)) }
    }
}

/// Both may be off the exact result by the derived bound of our kernel; so they are apart by twice that at most.
fn compare_results(problem: &Problem, kernel: &str, got: &[f32], want: &[f32]) -> Result<Comparison> {
    let mut state = 5;
    let sampled: Vec<usize> = match problem.flops > COMPARE_WHOLE {
        true => (0..SAMPLES).map(|_| (random(&mut state) % want.len().max(1) as u64) as usize).collect(),
        false => (0..want.len()).collect(),
    };
    let arrays = problem.arrays();
    let at = if problem.flops > COMPARE_WHOLE { At::Some(&sampled) } else { At::All };
    let bound = problem.operation.magnitude(&arrays, kernel, at)?.bound(SINGLE);
    let bound: Vec<f64> = bound.into_iter().map(|bound| 2.0 * bound).collect();
    // A result of another length is wrong wherever it has no element.
    let pick = |values: &[f32]| -> Vec<f64> {
        sampled.iter().map(|&i| values.get(i).map_or(f64::INFINITY, |&value| f64::from(value))).collect()
    };
    Ok(compare(&pick(got), &pick(want), &bound, &problem.output, |i| sampled[i]))
}

fn truth(problem: &Problem, index: &[usize]) -> Result<f64> {
    let flat = index.iter().zip(&problem.output).fold(0, |flat, (i, extent)| flat * extent + i);
    let values = problem.operation.reference(&problem.arrays(), At::Some(&[flat]))?;
    Ok(values.first().copied().unwrap_or(f64::NAN))
}
