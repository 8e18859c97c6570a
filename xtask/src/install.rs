//! Installs Mesa's software Vulkan driver, and Chromium, through apt, on Debian, Ubuntu and what derives from them.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::system::{Policy, Source, System, debian_archive, parse_sources, version_major};

/// The least major version of Mesa that needs no replacing: older software drivers turn each load from a storage buffer
/// into a loop over lanes and are several times slower.
pub const WANTED_MESA: u32 = 25;

/// The package whose version counts.
const DRIVER: &str = "mesa-vulkan-drivers";
const LOADER: &str = "libvulkan1";

/// The release whose own Mesa is too old while its backports have one that is not.
const BACKPORTED: &str = "bookworm";
const BACKPORTS: &str = "bookworm-backports";
/// A file of our own, so that it never replaces one of the user's.
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/wgconv-backports.sources";
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What installs a package. Another apt, such as the daily upgrades, may hold the lock for a while.
#[rustfmt::skip]
const APT_INSTALL: [&str; 9] = [
    "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends",
];

/// Why a driver is wanted.
#[derive(Clone, Copy, PartialEq)]
pub enum Need {
    /// There is no adapter at all.
    Any,
    /// There is one, and a newer driver would be faster.
    Newer,
}

/// Installs the newest software driver that the distribution has, and the Vulkan loader.
pub fn mesa(need: Need) -> Result<()> {
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        if let Some(value) = env::var_os(variable) {
            bail!("{variable} keeps the Vulkan loader to {}; unset it or correct it", value.display());
        }
    }
    let system = System::read()?;
    if !system.has_apt() {
        bail!("on {} nothing is installed for you; what it takes is {}", system.name, system.packages());
    }
    let may_backport = system.codename == BACKPORTED;
    // Asked before any update, so that a distribution that stays behind does not cost one, and a password, each time.
    if need == Need::Newer && !may_backport {
        refuse_the_same(&system, &policy(None)?)?;
    }

    let root = Root::new()?;
    println!("installing Mesa's software Vulkan driver on {}", system.name);
    update(&root);
    let mut policy = policy(None)?;
    let mut release = None;
    if may_backport && !policy.candidate.as_deref().is_some_and(new_enough) {
        match backports(&root) {
            Ok(newer) => (policy, release) = (newer, Some(BACKPORTS)),
            Err(error) => println!("warning: nothing taken from {BACKPORTS}: {error:#}"),
        }
    }
    if need == Need::Newer {
        refuse_the_same(&system, &policy)?;
    }
    let Some(version) = policy.candidate else {
        bail!("apt knows no package {DRIVER}: do its sources name the distribution's main archive?");
    };
    if !new_enough(&version) {
        println!("warning: Mesa {version} is the newest here; from {WANTED_MESA} on it would be several times faster");
    }

    let mut install = APT_INSTALL.to_vec();
    install.extend(release.iter().flat_map(|release| ["-t", release]));
    install.extend([DRIVER, LOADER]);
    root.run(&install, None)?;
    println!("installed: {DRIVER} {version}");
    Ok(())
}

/// Installs Chromium, which brings a WGSL compiler and a software Vulkan driver unlike Mesa's.
pub fn chromium() -> Result<()> {
    let system = System::read()?;
    if !system.has_apt() {
        bail!(
            "on {} Chromium is not installed for you: install it, and `chromium` on the search path is used",
            system.name
        );
    }
    let root = Root::new()?;
    println!("installing Chromium on {}", system.name);
    update(&root);
    root.run(&[&APT_INSTALL[..], &["chromium"]].concat(), None)
}

fn new_enough(version: &str) -> bool {
    version_major(version).is_some_and(|major| major >= WANTED_MESA)
}

/// An error where the newest driver to be had is the one already there.
fn refuse_the_same(system: &System, policy: &Policy) -> Result<()> {
    match (&policy.installed, &policy.candidate) {
        (Some(installed), Some(candidate)) if policy.from_archive && installed == candidate => {
            bail!("{installed} is the newest {DRIVER} that {} has", system.name)
        }
        _ => Ok(()),
    }
}

/// A source that is out of order, of whatever else is installed here, need not stop the packages wanted: so this warns.
fn update(root: &Root) {
    if let Err(error) = root.run(&["apt-get", "update", "-qq"], None) {
        println!("warning: {error:#}; going on with what apt knows");
    }
}

/// Makes the backports known to apt, unless they are, and gives what they offer. An error where that is not new enough.
fn backports(root: &Root) -> Result<Policy> {
    let sources = read_sources()?;
    let known = sources.iter().any(|source| source.has(BACKPORTS));
    if !known {
        let archive = debian_archive(&sources, BACKPORTED).context("apt's sources name no Debian archive")?;
        println!("adding {BACKPORTS} to apt's sources: {BACKPORTS_FILE}, at {}", archive.uri);
        let entry = backports_entry(archive, Path::new(DEBIAN_KEYRING).exists());
        root.run(&["install", "-m", "644", "/dev/stdin", BACKPORTS_FILE], Some(&entry))?;
        update(root);
    }
    let offered = policy(Some(BACKPORTS)).and_then(|policy| {
        ensure!(policy.candidate.as_deref().is_some_and(new_enough), "it has no {DRIVER} {WANTED_MESA} or later");
        Ok(policy)
    });
    if offered.is_err() && !known {
        println!("removing {BACKPORTS_FILE} again");
        root.run(&["rm", "-f", BACKPORTS_FILE], None)?;
    }
    offered
}

fn backports_entry(archive: &Source, has_keyring: bool) -> String {
    let mut entry = format!("Types: deb\nURIs: {}\nSuites: {BACKPORTS}\nComponents: main\n", archive.uri);
    // Whoever mirrors an archive under a key of their own says so at the entry that is there.
    let key = archive.signed_by.as_deref().or(has_keyring.then_some(DEBIAN_KEYRING));
    if let Some(key) = key {
        entry.push_str(&format!("Signed-By: {key}\n"));
    }
    entry
}

/// All entries of apt's sources.
fn read_sources() -> Result<Vec<Source>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(folder.flatten().map(|file| file.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        let deb822 = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => false,
            Some("sources") => true,
            _ => continue,
        };
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        sources.extend(parse_sources(&text, deb822));
    }
    Ok(sources)
}

/// What apt would install as the driver, if asked to take it from `release`.
fn policy(release: Option<&str>) -> Result<Policy> {
    let mut command = Command::new("apt-cache");
    command.arg("policy").args(release.iter().flat_map(|release| ["-t", release])).arg(DRIVER).env("LC_ALL", "C");
    let output = command.output().context("cannot start apt-cache")?;
    ensure!(output.status.success(), "apt-cache policy: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(Policy::parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Runs commands as root.
struct Root {
    sudo: bool,
}

impl Root {
    fn new() -> Result<Self> {
        let id = Command::new("id").arg("-u").output().context("cannot start id")?;
        let sudo = id.stdout.trim_ascii() != b"0";
        let has_sudo =
            || env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join("sudo").exists());
        if sudo && !has_sudo() {
            bail!("this needs root, and there is no sudo: as root, run `apt-get install {DRIVER} {LOADER}`");
        }
        Ok(Self { sudo })
    }

    fn run(&self, command: &[&str], stdin: Option<&str>) -> Result<()> {
        let words: Vec<&str> = self.sudo.then_some("sudo").iter().chain(command).copied().collect();
        let line = words.join(" ");
        println!("running: {line}");
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::inherit() })
            .spawn()
            .with_context(|| format!("cannot start {}", words[0]))?;
        if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
            pipe.write_all(text.as_bytes()).with_context(|| format!("writing to `{line}`"))?;
        }
        let status = child.wait().with_context(|| format!("waiting for `{line}`"))?;
        ensure!(status.success(), "`{line}` failed ({status})");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_for_backports() {
        let mut archive = Source { uri: "http://mirror.example/debian".into(), ..Source::default() };
        let entry = backports_entry(&archive, true);
        assert_eq!(
            entry,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        );
        let read = parse_sources(&entry, true);
        assert!(read[0].has(BACKPORTS), "what is written is found again, so that nothing is added twice");
        assert!(!backports_entry(&archive, false).contains("Signed-By"));
        archive.signed_by = Some("/etc/apt/keyrings/ours.gpg".into());
        assert!(backports_entry(&archive, true).ends_with("Signed-By: /etc/apt/keyrings/ours.gpg\n"));
    }

    #[test]
    fn versions_that_are_new_enough() {
        assert!(new_enough("25.0.7-2~bpo12+1"));
        assert!(!new_enough("22.3.6-1+deb12u2"));
    }

    #[test]
    fn the_same_version_again_is_refused() {
        let system = System::parse("ID=ubuntu\nPRETTY_NAME=\"Ubuntu 22.04\"");
        let mut policy = Policy {
            installed: Some("23.2.1-1ubuntu3".into()),
            candidate: Some("23.2.1-1ubuntu3".into()),
            from_archive: true,
        };
        let error = refuse_the_same(&system, &policy).unwrap_err().to_string();
        assert!(error.contains("Ubuntu 22.04") && error.contains("23.2.1"), "{error}");
        policy.from_archive = false;
        assert!(refuse_the_same(&system, &policy).is_ok(), "without package lists nothing is known about newer ones");
        policy = Policy { candidate: Some("25.0.7".into()), from_archive: true, ..policy };
        assert!(refuse_the_same(&system, &policy).is_ok());
    }
}
