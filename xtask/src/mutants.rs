//! Mutation testing: small mistakes are put into the code one at a time, and a test should notice each.
//!
//! Building the tests takes a minute or two, most mutants die within a second of tests. So there is one build that holds every mutant, and
//! an environment variable says which of them lives ("mutant schemata", Untch, Offutt and Harrold 1993): thousands are tried in the time
//! that a build for each would take for dozens. Constants, patterns and what a macro is given cannot ask for a variable and stay as they are.

mod rewrite;
mod sites;
mod targets;
mod trial;

use std::{
    collections::{BTreeSet, HashMap},
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::{
    rewrite::{Rewritten, rewrite},
    sites::Site,
    targets::{Group, TARGETS, Target},
    trial::{Outcome, Programs, Trials},
};
use crate::cargo::{self, Cargo};

/// Which mutants to try. Results are kept in `target/mutants/results.txt`, so that a run which is cut off goes on where it was.
#[derive(clap::Args)]
pub struct Options {
    /// Only files whose path has this part.
    #[arg(long, value_name = "PART", default_value = "")]
    filter: String,
    /// Only so many, chosen at random.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// What they are chosen by; a larger sample of the same seed has all of a smaller one.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Try those again that survived, as after new tests.
    #[arg(long)]
    again: bool,
    /// How many at a time.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    jobs: u8,
    /// Only say which there are.
    #[arg(long)]
    list: bool,
}

/// What became of a mutant that is none.
const STILLBORN: &str = "does not compile";

/// A source file with its sites; its mutants are numbered from `first` on.
struct File {
    target: &'static Target,
    source: String,
    sites: Vec<Site>,
    first: usize,
}

struct Mutant {
    target: &'static Target,
    number: usize,
    line: usize,
    function: String,
    about: String,
    /// The same as long as its line is: results outlive a change of other lines.
    key: String,
}

impl Mutant {
    fn name(&self) -> String {
        format!("{}:{} {}: {}", self.target.file, self.line, self.function, self.about)
    }
}

pub fn mutants(options: &Options) -> Result<()> {
    let root = cargo::root()?;
    let files = files(root)?;
    let all = all(&files);
    let mutants = select(&all, options);
    if options.list {
        mutants.iter().for_each(|mutant| println!("{:5}  {}", mutant.number, mutant.name()));
        println!("{} mutants", mutants.len());
        return Ok(());
    }

    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join("mutants");
    let copy = folder.join("workspace");
    copy_workspace(root, &copy, &files)?;
    let cargo = Cargo::new()?.within(&copy);
    let results = folder.join("results.txt");
    let known = read(&results)?;
    let is_stillborn = |mutant: &&Mutant| known.get(&mutant.key).is_some_and(|how| how.as_deref() == Some(STILLBORN));
    let mut stillborn: BTreeSet<usize> = all.iter().filter(is_stillborn).map(|mutant| mutant.number).collect();
    let programs = build(&cargo, copy, &files, &mut stillborn)?;
    for mutant in all.iter().filter(|mutant| stillborn.contains(&mutant.number) && !is_stillborn(mutant)) {
        note(&results, mutant, STILLBORN)?;
    }
    let mutants: Vec<&Mutant> = mutants.into_iter().filter(|mutant| !stillborn.contains(&mutant.number)).collect();
    println!("{} mutants; {} of all do not compile and are none", mutants.len(), stillborn.len());

    let open: Vec<&Mutant> = mutants
        .iter()
        .copied()
        .filter(|mutant| known.get(&mutant.key).is_none_or(|how| options.again && how.is_none()))
        .collect();
    if !open.is_empty() {
        let mut targets: Vec<&'static Target> = Vec::new();
        for mutant in &open {
            if targets.iter().all(|target| target.file != mutant.target.file) {
                targets.push(mutant.target);
            }
        }
        println!("\nthe tests without a mutant");
        let trials = Trials::new(&cargo, &programs, &targets)?;
        println!("\n{} mutants to try", open.len());
        run(&open, &trials, &results, options.jobs)?;
    }
    report(&mutants, &read(&results)?);
    Ok(())
}

fn files(root: &Path) -> Result<Vec<File>> {
    let mut first = 1;
    let read = |target: &'static Target| {
        let source = fs::read_to_string(root.join(target.file)).with_context(|| format!("reading {}", target.file))?;
        let sites = sites::find(&source, target.functions).with_context(|| format!("in {}", target.file))?;
        let file = File { target, source, first, sites };
        first += file.sites.iter().map(|site| site.changes.len()).sum::<usize>();
        Ok(file)
    };
    TARGETS.iter().map(read).collect()
}

fn all(files: &[File]) -> Vec<Mutant> {
    let mut list = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for file in files {
        let mut number = file.first;
        for site in &file.sites {
            let line = file.source.lines().nth(site.line - 1).unwrap_or_default().trim();
            for change in &site.changes {
                let key = format!("{} {}: {line}: {}", file.target.file, site.function, change.about);
                // Told apart where a line has the same twice.
                let twin = seen.entry(key.clone()).or_default();
                *twin += 1;
                list.push(Mutant {
                    target: file.target,
                    number,
                    line: site.line,
                    function: site.function.clone(),
                    about: change.about.clone(),
                    key: format!("{key} {twin}").replace('\t', " "),
                });
                number += 1;
            }
        }
    }
    list
}

/// The mutants asked for, in their order.
fn select<'a>(mutants: &'a [Mutant], options: &Options) -> Vec<&'a Mutant> {
    let mut mutants: Vec<&Mutant> =
        mutants.iter().filter(|mutant| mutant.target.file.contains(&options.filter)).collect();
    if let Some(count) = options.sample {
        mutants.sort_by_cached_key(|mutant| hash(options.seed, &mutant.key));
        mutants.truncate(count);
        mutants.sort_by_key(|mutant| mutant.number);
    }
    mutants
}

/// FNV-1a, its bits mixed: chooses the same on every machine.
fn hash(seed: u64, text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// Copies the workspace, what is mutated left out.
fn copy_workspace(root: &Path, copy: &Path, files: &[File]) -> Result<()> {
    let mutated = |name: &str| files.iter().any(|file| file.target.file == name);
    let list = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    let list = list.context("asking git for the files of the workspace")?.stdout;
    for name in String::from_utf8(list)?.split_terminator('\0').filter(|name| !mutated(name)) {
        // One that was deleted is listed all the same.
        let Ok(bytes) = fs::read(root.join(name)) else { continue };
        match name {
            "src/lib.rs" => write(&copy.join(name), rewrite::root(&String::from_utf8(bytes)?).as_bytes())?,
            // With the same version cargo would take what it built of the copy for what the workspace builds.
            "Cargo.toml" => {
                let text = String::from_utf8(bytes)?.replacen("\nversion = \"", "\nversion = \"0.0.0-mutants.", 1);
                write(&copy.join(name), text.as_bytes())?;
            }
            _ => write(&copy.join(name), &bytes)?,
        }
    }
    write(&copy.join("src/mutant.rs"), rewrite::MODULE.as_bytes())
}

/// Builds the tests of the copy with every mutant but those that do not compile: to the ones known are added, by what the compiler says,
/// those that stand in the way of the rest.
fn build(cargo: &Cargo, copy: PathBuf, files: &[File], stillborn: &mut BTreeSet<usize>) -> Result<Programs> {
    loop {
        let rewritten: Vec<Rewritten> =
            files.iter().map(|file| rewrite(&file.source, &file.sites, file.first, stillborn)).collect();
        for (file, rewritten) in files.iter().zip(&rewritten) {
            write(&copy.join(file.target.file), rewritten.text.as_bytes())?;
        }
        println!("building the tests with every mutant but {}", stillborn.len());
        // The whole workspace: with fewer packages cargo would choose fewer features and build the dependencies again.
        let options = ["--workspace", "--no-run", "--lib", "--test", "it", "--message-format", "json"];
        let messages = cargo.messages("test", &options)?;
        let messages: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let errors: Vec<&Value> = messages.iter().filter(|message| message["message"]["level"] == "error").collect();
        if errors.is_empty() {
            // Their own copies: another run with other mutants builds them anew.
            let program = |kind: &str| {
                let is = |message: &&Value| message["profile"]["test"] == true && message["target"]["kind"][0] == kind;
                let found = messages.iter().filter(is).find_map(|message| message["executable"].as_str());
                let found = found.context("the tests with the mutants were not built")?;
                let own = copy.with_file_name(kind);
                fs::copy(found, &own).with_context(|| format!("copying {found}")).map(|_| own)
            };
            return Ok(Programs { lib: program("lib")?, it: program("test")?, folder: copy });
        }
        let before = stillborn.len();
        for span in errors.iter().filter_map(|error| error["message"]["spans"].as_array()).flatten() {
            let place = |name: &str| span[name].as_u64().unwrap_or_default() as usize;
            let of = |(file, _): &(&File, &Rewritten)| span["file_name"] == file.target.file;
            if let Some((_, rewritten)) = files.iter().zip(&rewritten).find(of).filter(|_| span["is_primary"] == true) {
                stillborn.extend(rewritten.blamed(&(place("byte_start")..place("byte_end"))));
            }
        }
        if stillborn.len() == before {
            let text = errors.iter().filter_map(|error| error["message"]["rendered"].as_str()).collect::<String>();
            bail!("the copy with the mutants does not compile, by none of them:\n{text}");
        }
    }
}

/// Writes a file unless that is what it holds: cargo builds again by the time of the last change.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, bytes))
        .with_context(|| format!("writing {}", path.display()))
}

/// By key, what killed the mutant, or nothing. The last word counts.
fn read(results: &Path) -> Result<HashMap<String, Option<String>>> {
    if !results.exists() {
        return Ok(HashMap::new());
    }
    let text = fs::read_to_string(results).with_context(|| format!("reading {}", results.display()))?;
    let entry = |line: &str| {
        let (key, how) = line.split_once('\t')?;
        Some((key.to_string(), (!how.is_empty()).then(|| how.to_string())))
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// Adds what became of a mutant to the results; nothing is that it survived.
fn note(results: &Path, mutant: &Mutant, how: &str) -> Result<()> {
    let file = fs::OpenOptions::new().create(true).append(true).open(results);
    let mut file = file.with_context(|| format!("opening {}", results.display()))?;
    writeln!(file, "{}\t{how}", mutant.key).context("writing a result")
}

fn run(open: &[&Mutant], trials: &Trials<'_>, results: &Path, jobs: u8) -> Result<()> {
    let writing = Mutex::new(());
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = open.get(at) else { return Ok(()) };
            let how = match trials.of(mutant.number, mutant.target)? {
                Outcome::Killed(how) => how,
                Outcome::Survived => String::new(),
            };
            let _one = writing.lock().unwrap_or_else(PoisonError::into_inner);
            note(results, mutant, &how)?;
            let how = if how.is_empty() { "SURVIVED" } else { &how };
            println!("{:5} of {}  {} -> {how}", at + 1, open.len(), mutant.name());
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")));
        joined.collect()
    })
}

fn report(mutants: &[&Mutant], known: &HashMap<String, Option<String>>) {
    let score = |about: &str, wanted: &dyn Fn(&Mutant) -> bool| {
        let of: Vec<_> =
            mutants.iter().filter(|mutant| wanted(mutant)).filter_map(|mutant| known.get(&mutant.key)).collect();
        let killed: Vec<&String> = of.iter().filter_map(|how| how.as_ref()).collect();
        let timeouts = killed.iter().filter(|how| how.starts_with("timeout")).count();
        if !of.is_empty() {
            println!("{:5} of {:4} killed, {timeouts} by a timeout  {about}", killed.len(), of.len());
        }
    };
    println!();
    for target in TARGETS {
        score(target.file, &|mutant| mutant.target.file == target.file);
    }
    println!();
    for group in Group::ALL {
        score(group.name(), &|mutant| mutant.target.group == group);
    }
    score("all", &|_| true);
    println!();
    for mutant in mutants.iter().filter(|mutant| known.get(&mutant.key).is_some_and(Option::is_none)) {
        println!("survived: {}", mutant.name());
    }
}
