//! Tests of a program that holds every mutant, with one of them or none.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::targets::Target;
use crate::cargo::Cargo;

/// Virtual memory of a test program, KiB: a mutant may ask for all that there is.
const MOST_MEMORY: u64 = 12 << 20;

/// The two test programs.
pub struct Programs {
    pub lib: PathBuf,
    pub it: PathBuf,
    /// Where they run: the workspace that they were built from.
    pub folder: PathBuf,
}

/// Some tests of one program.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Stage {
    program: PathBuf,
    filters: &'static [&'static str],
}

/// What became of a mutant.
pub enum Outcome {
    /// By which test, or how else.
    Killed(String),
    Survived,
}

pub struct Trials<'a> {
    cargo: &'a Cargo,
    programs: &'a Programs,
    /// How long each stage takes without a mutant.
    times: HashMap<Stage, Duration>,
}

impl<'a> Trials<'a> {
    /// Runs all tests of these targets without a mutant, one stage after the other, and notes how long they take.
    pub fn new(cargo: &'a Cargo, programs: &'a Programs, targets: &[&'static Target]) -> Result<Self> {
        let mut trials = Self { cargo, programs, times: HashMap::new() };
        for stage in targets.iter().flat_map(|target| trials.stages(target)).collect::<Vec<_>>() {
            if trials.times.contains_key(&stage) {
                continue;
            }
            let start = Instant::now();
            if let Some(how) = trials.run(&stage, 0, Duration::from_secs(1200))? {
                bail!("without a mutant: {how}");
            }
            println!("{:7.1?}  {}", start.elapsed(), stage.filters.join(" "));
            trials.times.insert(stage, start.elapsed());
        }
        Ok(trials)
    }

    /// The stages of a target, the quickest first once that is known.
    fn stages(&self, target: &'static Target) -> Vec<Stage> {
        let lib = Stage { program: self.programs.lib.clone(), filters: target.lib };
        let it = target.it.chunks(1).map(|filters| Stage { program: self.programs.it.clone(), filters });
        let mut stages: Vec<Stage> = [lib].into_iter().chain(it).collect();
        stages.sort_by_key(|stage| self.times.get(stage).copied());
        stages
    }

    /// Runs the tests of a target with one mutant, until one notices.
    pub fn of(&self, mutant: usize, target: &'static Target) -> Result<Outcome> {
        for stage in self.stages(target) {
            let usual = self.times.get(&stage).copied().unwrap_or_default();
            // Time for shaders that no test takes otherwise, which a driver on the processor compiles.
            if let Some(how) = self.run(&stage, mutant, usual * 10 + Duration::from_secs(120))? {
                return Ok(Outcome::Killed(how));
            }
        }
        Ok(Outcome::Survived)
    }

    /// Runs a stage until its first failure, and tells what failed.
    fn run(&self, stage: &Stage, mutant: usize, limit: Duration) -> Result<Option<String>> {
        let mut command = self.cargo.limited_program(&stage.program, MOST_MEMORY);
        command.args(stage.filters).args(["--test-threads", "1"]).current_dir(&self.programs.folder);
        // What is random must not kill a mutant today and spare it tomorrow.
        command.env("WGCONV_MUTANT", mutant.to_string()).env("PROPTEST_RNG_SEED", "1").env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", stage.program.display()))?;
        let lines = lines(&mut child)?;
        let end = Instant::now() + limit;
        let how = loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(test) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
                        break Some(test.to_string());
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => break Some(format!("timeout in {}", stage.filters.join(" "))),
                // All is said: how it ended tells the rest.
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = child.wait().context("waiting for a test program")?;
                    return Ok((!status.success()).then(|| format!("{status} in {}", stage.filters.join(" "))));
                }
            }
        };
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        child.wait().context("waiting for a test program")?;
        Ok(how)
    }
}

/// What a program prints, line by line as it comes.
fn lines(child: &mut Child) -> Result<mpsc::Receiver<String>> {
    let output = child.stdout.take().context("a test program without an output")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more once a test has failed.
        let _ = BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| send.send(line));
    });
    Ok(receive)
}
