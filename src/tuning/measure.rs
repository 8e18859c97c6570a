//! Measures the kernels of a problem on the device: each is compared with the reference kernel first, then timed.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::Tunable;
use super::table::Entry;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::Plan;
use crate::run::Call;
use crate::tensor::Tensor;

/// A sample is of so many calls that it lasts about this long: submitting takes time too.
const SAMPLE: Duration = Duration::from_millis(2);
const MOST_CALLS: u32 = 32;
/// Samples of a kernel at most, and the time that they may take together.
const SAMPLES: u32 = 6;
const ENOUGH: Duration = Duration::from_millis(500);

/// The arguments of a call on tensors of our own.
type Arguments<'a> = [(&'static str, Option<&'a Tensor>)];

/// Measures the offered kernels. Work recorded before is submitted and waited for, and kernel times that the user collects do not
/// hear of this.
pub(crate) fn entry<T: Tunable>(gpu: &Gpu, problem: &T, offered: &[T::Kernel]) -> Result<Entry> {
    gpu.wait()?;
    let times = gpu.0.lock_recorder().times.take();
    let result = compare_and_time(gpu, problem, offered).and_then(|entry| gpu.wait().map(|()| entry));
    gpu.0.lock_recorder().times = times;
    result
}

fn compare_and_time<T: Tunable>(gpu: &Gpu, problem: &T, offered: &[T::Kernel]) -> Result<Entry> {
    let tensors = problem.arguments().into_iter().zip(1..).map(|((name, shape), seed)| {
        let tensor = shape.map(|shape| Tensor::from_slice(gpu, &shape, &values(name, seed, shape.iter().product())));
        tensor.transpose().map(|tensor| (name, tensor))
    });
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    let args: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor.as_ref())).collect();
    let want = run(gpu, &problem.plan(T::REFERENCE, gpu.profile())?, &args)?;
    let tolerance = tolerance(problem.products());
    let mut entry = Entry::default();
    let mut right = Vec::new();
    for &kernel in offered {
        let checked = problem.plan(kernel, gpu.profile()).and_then(|plan| {
            let got = run(gpu, &plan, &args)?;
            Ok((plan, difference(&got, &want, tolerance)))
        });
        let wrong = match checked {
            Ok((plan, None)) => {
                right.push(Candidate { name: T::name(kernel), plan, calls: 1, best: Duration::MAX });
                continue;
            }
            Ok((_, Some(reason))) => reason,
            // Not the kernel's fault, and not to be remembered as that.
            Err(error @ (Error::DeviceLost { .. } | Error::OutOfMemory { .. })) => return Err(error),
            Err(error) => error.to_string(),
        };
        entry.wrong.insert(T::name(kernel).into(), wrong);
    }
    time(gpu, &mut right, &args)?;
    entry.microseconds = right.iter().map(|c| (c.name.into(), c.best.as_secs_f64() * 1e6)).collect();
    Ok(entry)
}

struct Candidate {
    name: &'static str,
    plan: Plan,
    calls: u32,
    /// The least time of a call.
    best: Duration,
}

/// Times the candidates in turn, so that what else the machine does hits all of them alike.
fn time(gpu: &Gpu, candidates: &mut [Candidate], args: &Arguments<'_>) -> Result<()> {
    let start = Instant::now();
    for round in 0..SAMPLES {
        let best = candidates.iter().map(|candidate| candidate.best).min().unwrap_or(Duration::MAX);
        // One that is far behind does not catch up.
        for candidate in candidates.iter_mut().filter(|c| round == 0 || c.best / 2 <= best) {
            let start = Instant::now();
            for _ in 0..candidate.calls {
                Call { gpu: gpu.clone(), plan: candidate.plan.clone(), args }.forward()?;
            }
            gpu.wait()?;
            let each = start.elapsed() / candidate.calls;
            candidate.best = candidate.best.min(each);
            candidate.calls = (SAMPLE.as_nanos() / each.as_nanos().max(1)).clamp(1, MOST_CALLS.into()) as u32;
        }
        if start.elapsed() > ENOUGH {
            break;
        }
    }
    Ok(())
}

/// What a call gives, over NaN, so that an element that is not written shows.
fn run(gpu: &Gpu, plan: &Plan, args: &Arguments<'_>) -> Result<Vec<f32>> {
    let out = Tensor::from_slice(gpu, &plan.output, &vec![f32::NAN; plan.output.iter().product()])?;
    Call { gpu: gpu.clone(), plan: plan.clone(), args }.forward_into(&out)?;
    Ok(out.to_array()?.into_raw_vec_and_offset().0)
}

/// Seeded reals in -1..1; a mask is in 0..1, an offset in -2..2.
fn values(name: &str, seed: u64, count: usize) -> Vec<f32> {
    let (scale, shift) = match name {
        "mask" => (1.0, 0.0),
        "offset" => (4.0, -2.0),
        _ => (2.0, -1.0),
    };
    let value = |i: usize| {
        // SplitMix64 (Steele, Lea and Flood 2014), one step from each index.
        let mut z = (seed << 32).wrapping_add(i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 * scale + shift
    };
    (0..count).into_par_iter().map(value).collect()
}

/// How far a result may be from the reference kernel's.
///
/// On values in -1..1 the `n` products of a sum have absolute values of 1/4 in the mean, so that their sum S is about n/4, and the error of a
/// sum in any order about 2^-24 S, since rounding errors have either sign. This is 2^-16 S, with something for short sums, bias, residual and
/// activation: enough for a Winograd kernel too, and far less than one product that is missing or taken twice, up to 65,536 of them.
fn tolerance(products: u64) -> f32 {
    (products as f32 + 8.0) / 262_144.0
}

/// Where and how far two results differ, if by more than the tolerance.
fn difference(got: &[f32], want: &[f32], tolerance: f32) -> Option<String> {
    let far = |(got, want): (&f32, &f32)| (got - want).is_nan() || (got - want).abs() > tolerance;
    let at = got.iter().zip(want).position(far)?;
    Some(format!("element {at} is {} and not {}, tolerance {tolerance:e}", got[at], want[at]))
}

#[cfg(test)]
mod tests {
    use super::{difference, tolerance, values};

    #[test]
    fn a_difference_is_seen() {
        let want = values("input", 1, 1000);
        assert!(want.iter().all(|v| (-1.0..1.0).contains(v)) && want.iter().sum::<f32>().abs() < 100.0);
        assert_eq!(difference(&want, &want, tolerance(9)), None);
        for wrong in [want[500] + 2.0 * tolerance(9), f32::NAN, f32::INFINITY] {
            let mut got = want.clone();
            got[500] = wrong;
            assert!(difference(&got, &want, tolerance(9)).is_some_and(|reason| reason.starts_with("element 500")));
        }
        // One product of 1/4 left out of a long sum.
        assert!(tolerance(60_000) < 0.25);
    }

    #[test]
    fn values_suit_their_argument() {
        let range =
            |name| values(name, 3, 4096).into_iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(v), b.max(v)));
        assert!(range("mask").0 >= 0.0 && range("mask").1 < 1.0);
        assert!(range("offset").0 < -1.9 && range("offset").1 > 1.9);
        assert_ne!(values("input", 1, 8), values("input", 2, 8));
    }
}
