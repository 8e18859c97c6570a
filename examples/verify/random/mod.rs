//! Random problems over all operators, on every kernel that can take them, against the CPU reference: `verify --random 1000 --seed 7`.

pub mod check;
mod compound;
pub mod draw;
mod expect;
pub mod fill;
mod launch;
pub mod problem;
pub mod shrink;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use wgconv::Gpu;

use super::common::{Result, describe, progress, say};
use check::{Bench, Failure, Outcome, Tamper};
use problem::{Op, Problem};

/// What to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// Problems, from the first of the seed on.
    pub count: u64,
    pub seed: u64,
    /// Of these operators; of all where it is empty.
    pub ops: Vec<Op>,
    /// Stop after this time.
    pub most: Option<Duration>,
    /// Only the problem of this number.
    pub only: Option<u64>,
    /// Further arguments that a line to repeat a problem needs.
    pub repeat: String,
    pub tamper: Option<Tamper>,
}

/// What was run and what came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub problems: u64,
    pub refused: u64,
    pub too_large: u64,
    /// How many problems each kernel of each operator had.
    pub kernels: BTreeMap<(Op, &'static str), u64>,
    /// One line each.
    pub failures: Vec<String>,
}

/// A row of the table at the end.
#[derive(Default)]
struct Counts {
    problems: u64,
    refused: u64,
    too_large: u64,
    failed: u64,
}

/// Failures after which no more problems are run: something is wrong with all of them.
const MOST_FAILURES: usize = 100;

/// Failures of one kernel that are made small; later ones are likely to be the same mistake.
const MOST_SHRUNK: usize = 3;

/// Draws problems and checks them; writes one line for each that fails, and a table at the end.
///
/// # Errors
/// What has nothing to do with a problem: a lost device, no memory, an output that cannot be written.
pub fn random(request: &Request, gpu: &Gpu, out: &mut impl Write) -> Result<Summary> {
    let start = Instant::now();
    let bench = Bench { gpu, tamper: request.tamper };
    let mut summary = Summary::default();
    let mut of_each: BTreeMap<Op, Counts> = BTreeMap::new();
    let mut shrunk: BTreeMap<(Op, &'static str), usize> = BTreeMap::new();
    let numbers = request.only.map_or(0..request.count, |only| only..only + 1);
    let bar = progress(numbers.end - numbers.start);
    for number in numbers {
        if request.most.is_some_and(|most| start.elapsed() >= most) || summary.failures.len() == MOST_FAILURES {
            break;
        }
        let problem = draw::draw(request.seed, number, &request.ops);
        if number.is_multiple_of(8) {
            bar.set_message(format!("{} failed, {}", summary.failures.len(), problem.op.name()));
        }
        let counts = of_each.entry(problem.op).or_default();
        counts.problems += 1;
        summary.problems += 1;
        match bench.check(&problem)? {
            Outcome::Passed(kernels) => {
                for kernel in kernels {
                    *summary.kernels.entry((problem.op, kernel)).or_default() += 1;
                }
            }
            Outcome::Refused => (summary.refused, counts.refused) = (summary.refused + 1, counts.refused + 1),
            Outcome::TooLarge => (summary.too_large, counts.too_large) = (summary.too_large + 1, counts.too_large + 1),
            Outcome::Failed(failure) => {
                counts.failed += 1;
                let alike = shrunk.entry((problem.op, failure.kernel)).or_default();
                *alike += 1;
                let least = match *alike <= MOST_SHRUNK {
                    true => shrink::shrink(&bench, &problem, &failure)?,
                    false => (problem.clone(), failure),
                };
                let line = report(request, number, &least);
                bar.suspend(|| say(out, &line))?;
                summary.failures.push(line);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    for (op, Counts { problems, refused, too_large, failed }) in of_each {
        let of_op = summary.kernels.iter().filter(|((of, _), _)| *of == op);
        let kernels: Vec<String> = of_op.map(|((_, kernel), count)| format!("{kernel} {count}")).collect();
        let name = op.name();
        let counts = format!("{problems:7} problems {refused:5} refused {too_large:5} too large {failed:4} failed");
        say(out, format!("{name:16} {counts}  {}", kernels.join(", ")))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let runs: u64 = summary.kernels.values().sum();
    let rate = summary.problems as f64 / seconds.max(1e-9);
    say(out, format!("adapter {}", describe(&gpu.adapter_info())))?;
    say(
        out,
        format!(
            "seed {}: {} problems on {runs} kernels, {} refused, {} too large, {} failed, {seconds:.1} s, {rate:.0} problems a second",
            request.seed,
            summary.problems,
            summary.refused,
            summary.too_large,
            summary.failures.len()
        ),
    )?;
    Ok(summary)
}

/// The line of a failure: what is wrong with the least problem that was found to fail alike, and how to see it again.
fn report(request: &Request, number: u64, (least, how): &(Problem, Failure)) -> String {
    let what = how.what.split_whitespace().collect::<Vec<_>>().join(" ");
    let kernel = if how.kernel.is_empty() { String::new() } else { format!(" {}", how.kernel) };
    let repeat = format!("verify --random 1 --seed {} --only {number}{}", request.seed, request.repeat);
    format!("FAIL {}{kernel}: {what}; problem {least}; repeat: {repeat}", least.op.name())
}
