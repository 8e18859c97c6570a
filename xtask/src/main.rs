//! Development tasks: `cargo xtask demo`, `cargo xtask test`, `cargo xtask random`, `cargo xtask examples`,
//! `cargo xtask browser`, `cargo xtask mutants`, `cargo xtask setup`.

mod adapter;
mod browser;
mod cargo;
mod examples;
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
        /// And then tests of large tensors and tens of thousands of random problems, which takes an hour or so on a software adapter.
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
    /// Run every example once, quickly.
    Examples,
    /// Compile every shader with a browser's compiler, which checks what the library's own does not.
    Browser,
    /// Put small mistakes into shape rules, choice of plans and reference, one at a time, and count those that a test notices.
    Mutants(mutants::Options),
    /// Only make sure that there is an adapter.
    Setup {
        /// And Chromium, whose software driver is a second adapter to test on.
        #[arg(long)]
        chromium: bool,
    },
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
        Task::Setup { chromium } => match chromium && browser::find().is_none() {
            true => install::chromium(),
            false => Ok(()),
        },
        Task::Examples => examples::run_all(),
        Task::Browser => browser::compile_all(),
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
            if long {
                large(&args)?;
                random::random(adapter.as_ref(), true)?;
            }
            Ok(())
        }
        Task::Random { long } => random::random(adapter.as_ref(), long),
        Task::Mutants(options) => mutants::mutants(&options),
    }
}

/// One run of the tests: what it is, what cargo is asked for, and the environment that makes it different.
struct TestRun {
    about: String,
    targets: &'static [&'static str],
    /// Only tests with one of these in their names, unless the user has a choice; all where there is none.
    only: &'static [&'static str],
    /// Left out, by a part of their names.
    skipped: &'static [&'static str],
    env: Vec<(&'static str, &'static str)>,
}

/// Tests of whatever a subgroup's size goes into: kernels that are written for one. What becomes of a call, the epilogue's functions and
/// what is built from operators do not depend on it.
const OF_LANES: &[&str] =
    &["conv::", "conv_transpose::", "deform::", "involution::", "linear::", "winograd::", "golden::"];
/// All operators, for a second driver.
const OF_OPERATORS: &[&str] = &[
    "conv::",
    "conv_transpose::",
    "deform::",
    "elementwise::",
    "golden::",
    "involution::",
    "linear::",
    "pool::",
    "rearrange::",
    "separable::",
    "softmax::",
    "winograd::",
];
/// A few of them, for a width at which the software driver takes several times as long to compile a shader.
const FEW_OF_LANES: &[&str] = &[
    "conv::awkward",
    "conv::depthwise",
    "conv::grouped",
    "conv_transpose::awkward",
    "deform::awkward",
    "golden::every_kernel",
    "involution::awkward",
    "linear::awkward",
    "winograd::integers",
];
/// Faults are made before a driver is asked.
const OF_FAULTS: &[&str] = &["faults::", "lost::", "threads::"];

/// The runs of `cargo xtask test`, the longest first.
fn test_runs(adapter: Option<&Adapter>, quick: bool, swiftshader: bool) -> Vec<TestRun> {
    // --workspace everywhere: with fewer packages cargo would choose fewer features and build the dependencies again.
    let run = |about: &str, targets| TestRun { about: about.into(), targets, only: &[], skipped: &[], env: vec![] };
    let integration = |about: &str, env| TestRun { env, ..run(about, &["--workspace", "--test", "it"]) };
    let all = integration("integration tests", vec![]);
    let library = run("tests of the library and of these tasks", &["--workspace", "--lib", "--bins"]);
    let documentation = run("tests in the documentation", &["--workspace", "--doc"]);
    if quick {
        return vec![all, library, documentation];
    }
    let mut runs = vec![all];
    if let Some(llvmpipe) = adapter.filter(|adapter| adapter.is_llvmpipe()) {
        // The vector width is the subgroup size times 32: what is right for one size only shows under another.
        for (width, only) in [("512", FEW_OF_LANES), ("128", OF_LANES), ("256", OF_LANES)] {
            if !llvmpipe.has_vectors_of(width) {
                let about = format!("kernels with llvmpipe's vectors {width} bits wide");
                runs.push(TestRun { only, ..integration(&about, vec![("LP_NATIVE_VECTOR_WIDTH", width)]) });
            }
        }
    }
    let limits = integration("integration tests under WebGPU's default limits", vec![("WGCONV_LIMITS", "default")]);
    runs.push(TestRun { skipped: OF_FAULTS, ..limits });
    if swiftshader {
        let second = integration("operators on SwiftShader", adapter::SWIFTSHADER.to_vec());
        runs.push(TestRun { only: OF_OPERATORS, ..second });
    }
    runs.extend([library, documentation]);
    runs
}

fn test(adapter: Option<&Adapter>, quick: bool, args: &[OsString]) -> Result<()> {
    let cargo = Cargo::new()?;
    let runs = test_runs(adapter, quick, adapter::has_swiftshader());
    let options = |run: &TestRun| ["--no-fail-fast"].iter().chain(run.targets).copied().collect::<Vec<_>>();
    let chosen = args.iter().any(|arg| !arg.to_string_lossy().starts_with('-'));

    println!("\nbuilding the tests, and the examples, some of which they start");
    if !cargo.run("test", &["--workspace", "--tests", "--no-run"], &[], &[])? {
        bail!("the tests do not build");
    }
    cargo.build_examples()?;

    // Two at a time: a software adapter compiles shaders on one core for each process, which is most of what a run does while the
    // driver's own cache is cold. Each is shown when it is done.
    println!("\ntest runs: {}, two at a time", runs.len());
    let failed = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            println!("started: {}", run.about);
            let start = Instant::now();
            let only = run.only.iter().filter(|_| !chosen).copied();
            let names = only.chain(run.skipped.iter().flat_map(|name| ["--skip", name])).map(OsString::from);
            let args: Vec<OsString> = args.iter().cloned().chain(names).collect();
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

/// Tests that take more memory than some machines have.
fn large(args: &[OsString]) -> Result<()> {
    let args: Vec<OsString> = args.iter().cloned().chain(["--ignored".into(), "size::".into()]).collect();
    match Cargo::new()?.run("test", &["--workspace", "--test", "it"], &args, &[])? {
        true => Ok(()),
        false => bail!("the tests of large tensors failed"),
    }
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
