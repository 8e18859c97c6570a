//! Random problems on every kernel: a few from a fresh seed, or many on all that this machine can show.

use std::env;

use anyhow::{Result, bail};

use crate::{
    adapter::{self, Adapter},
    cargo::Cargo,
};

/// One run of `verify --random`: what it is, how many problems, and the environment that makes it different.
struct RandomRun {
    about: &'static str,
    problems: u32,
    env: Vec<(&'static str, &'static str)>,
}

fn random_runs(adapter: Option<&Adapter>, long: bool, swiftshader: bool) -> Vec<RandomRun> {
    let run = |about, problems, env| RandomRun { about, problems, env };
    if !long {
        let mut runs = vec![run("random problems", 400, vec![])];
        runs.extend(swiftshader.then(|| run("SwiftShader", 100, adapter::SWIFTSHADER.to_vec())));
        return runs;
    }
    let mut runs = vec![run("random problems", 50_000, vec![])];
    if adapter.is_some_and(Adapter::is_llvmpipe) {
        // Few of the widest: a shader takes the driver a quarter of a minute there.
        runs.push(run("llvmpipe's vectors 128 bits wide", 5_000, vec![("LP_NATIVE_VECTOR_WIDTH", "128")]));
        runs.push(run("llvmpipe's vectors 512 bits wide", 400, vec![("LP_NATIVE_VECTOR_WIDTH", "512")]));
    }
    runs.push(run("WebGPU's default limits", 5_000, vec![("WGCONV_LIMITS", "default")]));
    runs.push(run("bindings of 4 KiB", 5_000, vec![("WGCONV_LIMITS", "4096")]));
    runs.push(run("bindings of 32 KiB", 5_000, vec![("WGCONV_LIMITS", "32768")]));
    runs.push(run("dispatches cut small", 2_000, vec![("WGCONV_MAX_WORK", "100000")]));
    runs.extend(swiftshader.then(|| run("SwiftShader", 10_000, adapter::SWIFTSHADER.to_vec())));
    runs
}

/// Builds `verify` and runs it on random problems; an error where one fails.
pub fn random(adapter: Option<&Adapter>, long: bool) -> Result<()> {
    let cargo = Cargo::new()?;
    let verify = cargo.build_examples()?.join(format!("verify{}", env::consts::EXE_SUFFIX));
    let mut failed = Vec::new();
    for run in random_runs(adapter, long, adapter::has_swiftshader()) {
        println!("\n{}: {} problems", run.about, run.problems);
        if !cargo.run_program(&verify, &["--random", &run.problems.to_string()], &run.env)? {
            failed.push(run.about);
        }
    }
    match &failed[..] {
        [] => Ok(()),
        failed => bail!("random problems failed: {}", failed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_shows_all_that_there_is() {
        assert_eq!(random_runs(None, false, true).len(), 2);
        assert_eq!(random_runs(None, false, false).len(), 1);
        let runs = random_runs(None, true, true);
        assert_eq!(
            runs.iter().map(|run| run.problems).collect::<Vec<_>>(),
            [50_000, 5_000, 5_000, 5_000, 2_000, 10_000]
        );
        assert_eq!(random_runs(None, true, false).len(), 5);
    }
}
