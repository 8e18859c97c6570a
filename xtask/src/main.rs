//! Development tasks: `cargo xtask demo`, `cargo xtask test`, `cargo xtask random`, `cargo xtask mutants`,
//! `cargo xtask setup`.

mod adapter;
mod cargo;
mod install;
mod mutants;
mod random;
mod system;

use std::{
    ffi::OsString,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::{adapter::Adapter, cargo::Cargo, install::Need};

/// Development tasks of wgconv.
///
/// Each makes sure first that there is an adapter to run on; on Debian and Ubuntu without a usable one it installs Mesa's
/// software Vulkan driver. WGCONV_ADAPTER, a part of its name, narrows the choice of adapter.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Classify pictures: the bundled ones, or those named after `--`.
    Demo {
        /// What the example `classify` gets.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run all tests, then the integration tests again under every variation that this machine can show.
    Test {
        /// Only the first run, without the variations.
        #[arg(long, conflicts_with = "long")]
        quick: bool,
        /// And then tens of thousands of random problems, which takes an hour or so on a software adapter.
        #[arg(long)]
        long: bool,
        /// What each test binary gets, such as a part of the names of the tests to run.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run random problems on every kernel that can take them, from a fresh seed that is printed.
    Random {
        /// Tens of thousands, under every variation and on every adapter that this machine can show.
        #[arg(long)]
        long: bool,
    },
    /// Put small mistakes into shape rules, choice of plans and reference, one at a time, and count those that a test notices.
    Mutants(mutants::Options),
    /// Only make sure that there is an adapter.
    Setup,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let adapter = ensure_adapter()?;
    match task {
        Task::Setup => Ok(()),
        Task::Demo { args } => {
            let cargo = Cargo::new()?;
            if cargo.run("run", &["--release", "--example", "classify"], &args, &[])? {
                Ok(())
            } else {
                bail!("the demo failed");
            }
        }
        Task::Test { quick, long, args } => {
            test(adapter.as_ref(), quick, &args)?;
            if long { random::random(adapter.as_ref(), true) } else { Ok(()) }
        }
        Task::Random { long } => random::random(adapter.as_ref(), long),
        Task::Mutants(options) => mutants::mutants(&options),
    }
}

/// One run of the tests: what it is, what cargo is asked for, and the environment that makes it different.
struct TestRun {
    about: String,
    targets: &'static [&'static str],
    /// Left out, by the start of their names.
    skipped: &'static [&'static str],
    env: Vec<(&'static str, &'static str)>,
}

/// The runs of `cargo xtask test`, in order.
fn test_runs(adapter: Option<&Adapter>, quick: bool) -> Vec<TestRun> {
    let all = TestRun {
        about: "all tests: library, integration, documentation".into(),
        targets: &["--workspace"],
        skipped: &[],
        env: vec![],
    };
    if quick {
        return vec![all];
    }
    // --workspace here too: with fewer packages cargo would choose fewer features and build the dependencies again.
    let integration: &[&str] = &["--workspace", "--test", "it"];
    // What becomes of a call whose memory or device goes does not depend on the kernels' lanes or limits.
    let skipped: &[&str] = &["faults::", "lost::", "threads::"];
    // The vector width is the subgroup size times 32: what is right for one size only shows under another.
    let widened = |width: &'static str| TestRun {
        about: format!("integration tests with llvmpipe's vectors {width} bits wide"),
        targets: integration,
        skipped,
        env: vec![("LP_NATIVE_VECTOR_WIDTH", width)],
    };
    let mut runs = vec![all];
    if adapter.is_some_and(Adapter::is_llvmpipe) {
        // The widest first: it takes longest.
        runs.insert(0, widened("512"));
        runs.extend([widened("128"), widened("256")]);
    }
    runs.push(TestRun {
        about: "integration tests under WebGPU's default limits".into(),
        targets: integration,
        skipped,
        env: vec![("WGCONV_LIMITS", "default")],
    });
    runs
}

fn test(adapter: Option<&Adapter>, quick: bool, args: &[OsString]) -> Result<()> {
    let cargo = Cargo::new()?;
    let runs = test_runs(adapter, quick);
    let options = |run: &TestRun| ["--no-fail-fast"].iter().chain(run.targets).copied().collect::<Vec<_>>();

    if let [only] = &runs[..] {
        return match cargo.run("test", &options(only), args, &only.env)? {
            true => Ok(()),
            false => bail!("the tests failed"),
        };
    }

    println!("\nbuilding the tests");
    if !cargo.run("test", &["--workspace", "--no-run"], &[], &[])? {
        bail!("the tests do not build");
    }

    // Two at a time: a software adapter compiles shaders on one core for each process, which is most of what a run does while the
    // driver's own cache is cold. Each is shown when it is done.
    println!("\ntest runs: {}, two at a time", runs.len());
    let failed = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            println!("started: {}", run.about);
            let start = Instant::now();
            let skipped = run.skipped.iter().flat_map(|name| ["--skip", name]).map(OsString::from);
            let args: Vec<OsString> = args.iter().cloned().chain(skipped).collect();
            let (passed, text) = cargo.run_quietly("test", &options(run), &args, &run.env)?;
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            println!("\ntest run: {} ({:.0?})\n{text}", run.about, start.elapsed());
            if !passed {
                failed.push(run.about.as_str());
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let second = scope.spawn(work);
        work().and(second.join().unwrap_or_else(|_| bail!("a thread that ran tests panicked")))
    })?;

    println!();
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() {
        println!("test runs passed: {} of {0}", runs.len());
        return Ok(());
    }
    bail!("{} of {} test runs failed:\n  {}", failed.len(), runs.len(), failed.join("\n  "));
}

/// Makes sure that there is an adapter, installing Mesa's software driver where that can help, and says which one it is.
/// `None` where the system brings its own graphics interface, so that there is nothing to look for.
fn ensure_adapter() -> Result<Option<Adapter>> {
    if cfg!(any(target_os = "macos", target_os = "windows")) {
        let api = if cfg!(target_os = "macos") { "Metal" } else { "DX12" };
        println!("adapter: the system's own, through {api}; nothing to install");
        return Ok(None);
    }
    let mut found = adapter::find().context("no adapter can be used")?;
    match &found {
        Some(adapter) if adapter.is_old_mesa() => {
            println!("adapter: {adapter}");
            println!(
                "this driver is older than Mesa {} and several times slower than it: looking for a newer one",
                install::WANTED_MESA
            );
            // The old driver works, so that a machine without network or sudo is not held up by it.
            match install::mesa(Need::Newer) {
                Ok(()) => found = adapter::find()?,
                Err(error) => println!("warning: going on with the old driver: {error:#}"),
            }
        }
        Some(_) => {}
        None => {
            println!("adapter: none found");
            install::mesa(Need::Any)
                .context("there is no adapter, and Mesa's software driver could not be installed")?;
            found = adapter::find()?;
        }
    }
    let Some(adapter) = found else {
        bail!("still no adapter after installing Mesa's software driver: the Vulkan loader finds no device by it");
    };
    println!("adapter: {adapter}");
    Ok(Some(adapter))
}
