//! Every example once, quickly, as a newcomer would run it.

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::cargo::Cargo;

/// A run of an example. `OUT` among the arguments stands for a file that must be there afterwards.
struct Smoke {
    example: &'static str,
    args: &'static [&'static str],
}

const fn smoke(example: &'static str, args: &'static [&'static str]) -> Smoke {
    Smoke { example, args }
}

const OUT: &str = "OUT";

const RUNS: &[Smoke] = &[
    smoke("adapters", &[]),
    smoke("classify", &["--layers"]),
    smoke("cost", &["--channels", "16,16", "--size", "14x14", "--groups", "8", "--repeat", "2", "--json", OUT]),
    smoke("deform_view", &["--size", "120", "--out", OUT]),
    smoke("detect_text", &["--side", "320", "--out", OUT]),
    smoke("gallery", &["--out", OUT]),
    smoke("involution_view", &["--size", "120", "--out", OUT]),
    smoke("layers", &["--filter", "dw_112", "--repeat", "2", "--json", OUT]),
    smoke("operators", &["--layers", "16@14,32@7", "--groups", "8", "--repeat", "2", "--json", OUT]),
    smoke("peaks", &["--repeat", "2", "--json", OUT]),
    smoke("receptive_field", &["--rates", "2,2,2", "--out", OUT]),
    smoke("shared_device", &[]),
    smoke("shots", &[]),
    smoke("verify", &["tests/golden"]),
];

/// Builds all examples and runs each; an error where one fails or does not write what it is asked for.
pub fn run_all() -> Result<()> {
    let cargo = Cargo::new()?;
    let folder = env::temp_dir().join(format!("wgconv-examples-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the directory {}", folder.display()))?;
    let programs = cargo.build_examples()?;
    let mut failed = Vec::new();
    for run in RUNS {
        let program = programs.join(format!("{}{}", run.example, env::consts::EXE_SUFFIX));
        if let Err(error) = one(&cargo, &program, run, &folder) {
            println!("error: {error:#}");
            failed.push(run.example);
        }
    }
    // A leftover directory in the temporary ones harms nobody.
    let _ = fs::remove_dir_all(&folder);
    match &failed[..] {
        [] => {
            println!("\nexamples that ran: {} of {0}", RUNS.len());
            Ok(())
        }
        failed => bail!("examples failed: {}", failed.join(", ")),
    }
}

fn one(cargo: &Cargo, program: &Path, run: &Smoke, folder: &Path) -> Result<()> {
    println!();
    let ending = if run.args.contains(&"--json") { "json" } else { "png" };
    let out = folder.join(format!("{}.{ending}", run.example));
    let out_text = out.to_str().context("the directory for temporary files has a name that is not UTF-8")?;
    let args: Vec<&str> = run.args.iter().map(|arg| if *arg == OUT { out_text } else { arg }).collect();
    if !cargo.run_program(program, &args, &[])? {
        bail!("{} failed", run.example);
    }
    if args.contains(&out_text) && fs::metadata(&out).map_or(0, |file| file.len()) == 0 {
        bail!("{} wrote nothing to {}", run.example, out.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_example_is_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let mut there = BTreeSet::new();
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|ending| ending == "rs") || path.join("main.rs").exists() {
                there.insert(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
        assert_eq!(RUNS.iter().map(|run| run.example.to_owned()).collect::<BTreeSet<_>>(), there);
    }
}
