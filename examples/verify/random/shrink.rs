//! Makes a problem that fails smaller for as long as it fails.

use wgconv::reference::{ActivationKind, BorderMode};

use super::super::common::Result;
use super::check::{Bench, Failure, Outcome};
use super::fill::Fill;
use super::problem::{Op, Problem};

/// Problems that are tried at most.
const MOST_TRIES: usize = 600;

/// The least problem found that fails as this one does, on the same kernel, and how.
///
/// # Errors
/// As [`Bench::check`].
pub fn shrink(bench: &Bench<'_>, problem: &Problem, failure: &Failure) -> Result<(Problem, Failure)> {
    let (mut least, mut how) = (problem.clone(), failure.clone());
    let mut tries = 0;
    loop {
        let mut smaller = None;
        for candidate in simpler(&least) {
            if tries == MOST_TRIES {
                return Ok((least, how));
            }
            tries += 1;
            match bench.check(&candidate)? {
                Outcome::Failed(failure) if failure.kernel == how.kernel => {
                    smaller = Some((candidate, failure));
                    break;
                }
                _ => {}
            }
        }
        match smaller {
            Some(found) => (least, how) = found,
            None => return Ok((least, how)),
        }
    }
}

/// Lesser values of a number to try, the least first.
fn lesser(value: usize, least: usize) -> Vec<usize> {
    let mut list: Vec<usize> = [least, value / 2, value.saturating_sub(4), value.saturating_sub(1)].into();
    list.retain(|&lesser| lesser >= least && lesser < value);
    list.dedup();
    list
}

/// Problems that are simpler in one respect, the largest steps first.
fn simpler(p: &Problem) -> Vec<Problem> {
    let mut list = Vec::new();
    let mut try_with = |change: &dyn Fn(&mut Problem)| {
        let mut simpler = p.clone();
        change(&mut simpler);
        // Offset groups must go on dividing the channels.
        if simpler.c_in() > 0 && !simpler.c_in().is_multiple_of(simpler.offset_groups.max(1)) {
            simpler.offset_groups = 1;
        }
        if simpler != *p {
            list.push(simpler);
        }
    };
    try_with(&|p| p.activation = ActivationKind::Identity);
    try_with(&|p| p.residual = false);
    try_with(&|p| p.bias = false);
    try_with(&|p| p.mask = false);
    try_with(&|p| p.border = BorderMode::Zeros);
    try_with(&|p| p.flip = false);
    try_with(&|p| p.fast_math = false);
    try_with(&|p| (p.ceil, p.include_pad) = (false, false));
    try_with(&|p| (p.leading, p.spread) = (0, [0, 0]));
    try_with(&|p| p.fill = Fill::Integers);
    if p.fill == Fill::Scales {
        try_with(&|p| p.fill = Fill::Reals);
    }
    for value in lesser(p.batch, 1) {
        try_with(&|p| p.batch = value);
    }
    for value in lesser(p.groups, 1) {
        try_with(&|p| p.groups = value);
    }
    for value in lesser(p.offset_groups, 1) {
        try_with(&|p| p.offset_groups = value);
    }
    for side in 0..2 {
        for value in lesser(p.channels[side], 1) {
            try_with(&|p| p.channels[side] = value);
        }
        let least = usize::from(p.op != Op::Narrow && !(p.op == Op::Concat && side == 1));
        for value in lesser(p.parts[side], least) {
            try_with(&|p| p.parts[side] = value);
        }
    }
    for axis in 0..p.extents.len() {
        for value in lesser(p.extents[axis], 1) {
            try_with(&|p| p.extents[axis] = value);
        }
    }
    for axis in 0..p.kernel.len() {
        for value in lesser(p.kernel[axis], 1) {
            try_with(&|p| p.kernel[axis] = value);
        }
        for value in lesser(p.stride[axis], 1) {
            try_with(&|p| p.stride[axis] = value);
        }
        for value in lesser(p.dilation[axis], 1) {
            try_with(&|p| p.dilation[axis] = value);
        }
        for value in lesser(p.output_padding[axis], 0) {
            try_with(&|p| p.output_padding[axis] = value);
        }
        for value in lesser(p.pads[axis].0, 0) {
            try_with(&|p| p.pads[axis].0 = value);
        }
        for value in lesser(p.pads[axis].1, 0) {
            try_with(&|p| p.pads[axis].1 = value);
        }
    }
    list
}
