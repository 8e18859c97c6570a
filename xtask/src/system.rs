//! Reads what Linux distributions write about themselves: os-release, apt's sources, apt-cache's policy.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result};

/// A Linux distribution, as os-release describes it.
pub struct System {
    /// For people: `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// Such as `bookworm`; empty where the distribution has none.
    pub codename: String,
    /// Its ID, then those of what it derives from.
    ids: Vec<String>,
}

impl System {
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
        text.map(|text| Self::parse(&text)).context("cannot read /etc/os-release, so nothing is known of this system")
    }

    pub fn parse(os_release: &str) -> Self {
        let fields: HashMap<&str, &str> = os_release
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .map(|(field, value)| (field, value.trim_matches(['"', '\''])))
            .collect();
        let field = |name| fields.get(name).copied().unwrap_or_default();
        let ids = [field("ID"), field("ID_LIKE")].join(" ").split_whitespace().map(str::to_lowercase).collect();
        let name = ["PRETTY_NAME", "NAME", "ID"].into_iter().map(field).find(|name| !name.is_empty());
        Self { name: name.unwrap_or("this system").into(), codename: field("VERSION_CODENAME").into(), ids }
    }

    fn is(&self, id: &str) -> bool {
        self.ids.iter().any(|own| own == id)
    }

    pub fn has_apt(&self) -> bool {
        self.is("debian") || self.is("ubuntu")
    }

    /// The packages with Mesa's software driver and the Vulkan loader, for a sentence.
    pub fn packages(&self) -> &'static str {
        match self {
            system if system.is("fedora") || system.is("rhel") => "mesa-vulkan-drivers and vulkan-loader",
            system if system.is("arch") => "vulkan-swrast and vulkan-icd-loader",
            system if system.is("suse") || system.is("opensuse") => "libvulkan_lvp and libvulkan1",
            system if system.is("alpine") => "mesa-vulkan-swrast and vulkan-loader",
            _ => {
                "a Vulkan driver (that of your GPU, or Mesa's software driver lavapipe) and the Vulkan loader (libvulkan.so.1)"
            }
        }
    }
}

/// One enabled entry for binary packages in apt's sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    pub uri: String,
    pub suites: Vec<String>,
    pub components: Vec<String>,
    /// A path or a fingerprint; a key written out in place is left to apt's own keyrings.
    pub signed_by: Option<String>,
}

impl Source {
    /// Whether it has the main part of a suite.
    pub fn has(&self, suite: &str) -> bool {
        self.suites.iter().any(|own| own == suite) && self.components.iter().any(|own| own == "main")
    }
}

/// The entries of one file: of the form with stanzas (`.sources`) or the one with a line an entry (`.list`).
pub fn parse_sources(text: &str, deb822: bool) -> Vec<Source> {
    if deb822 {
        let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        text.split(|line| line.trim().is_empty()).flat_map(parse_stanza).collect()
    } else {
        text.lines().filter_map(parse_line).collect()
    }
}

fn parse_stanza(lines: &[&str]) -> Vec<Source> {
    let mut fields: HashMap<String, String> = HashMap::new();
    let mut last = String::new();
    for line in lines {
        // A line that begins with white space goes on with the field before.
        if line.starts_with([' ', '\t']) {
            fields.entry(last.clone()).or_default().push_str(&format!("\n{}", line.trim()));
        } else if let Some((field, value)) = line.split_once(':') {
            last = field.trim().to_lowercase();
            fields.insert(last.clone(), value.trim().into());
        }
    }
    let words = |field: &str| -> Vec<String> {
        fields.get(field).map(|value| value.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
    };
    let disabled = ["no", "false", "0", "off", "without", "disable"];
    let enabled = !words("enabled").first().is_some_and(|word| disabled.contains(&word.to_lowercase().as_str()));
    if !enabled || !words("types").iter().any(|kind| kind == "deb") {
        return vec![];
    }
    let signed_by = fields.get("signed-by").filter(|value| !value.contains('\n') && !value.is_empty());
    let entry = Source {
        uri: String::new(),
        suites: words("suites"),
        components: words("components"),
        signed_by: signed_by.cloned(),
    };
    words("uris").into_iter().map(|uri| Source { uri, ..entry.clone() }).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?;
    // Else it is deb-src.
    if !rest.starts_with([' ', '\t', '[']) {
        return None;
    }
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (options, after) = bracketed.split_once(']')?;
        signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source { uri: words.next()?, suites: vec![words.next()?], components: words.collect(), signed_by })
}

/// The entry of Debian's own archive among `sources`. Others, too, may call their address, suite and component so: the
/// archive is told apart by having the updates of the release as well.
pub fn debian_archive<'a>(sources: &'a [Source], codename: &str) -> Option<&'a Source> {
    let updates = format!("{codename}-updates");
    let named_debian = |source: &&Source| {
        let uri = source.uri.trim_end_matches('/');
        // Cloud images name a file with a list of mirrors.
        uri.ends_with("/debian") || uri.ends_with("/debian.list")
    };
    let likeness = |source: &&Source| {
        let has_updates = sources.iter().any(|other| other.uri == source.uri && other.has(&updates));
        (source.has(codename), has_updates)
    };
    // The first of the most alike, as max_by_key would give the last.
    sources.iter().filter(named_debian).rev().max_by_key(likeness)
}

/// What `apt-cache policy` says of one package.
#[derive(Debug, Default, PartialEq)]
pub struct Policy {
    pub installed: Option<String>,
    pub candidate: Option<String>,
    /// Whether an archive offers a version. Without package lists apt knows the installed version only.
    pub from_archive: bool,
}

impl Policy {
    /// From the words of the C locale.
    pub fn parse(text: &str) -> Self {
        let version = |label| {
            let value = text.lines().find_map(|line| line.trim().strip_prefix(label))?.trim();
            (value != "(none)").then(|| value.to_owned())
        };
        Self {
            installed: version("Installed:"),
            candidate: version("Candidate:"),
            from_archive: text.lines().any(|line| line.trim_end().ends_with(" Packages")),
        }
    }
}

/// The major version in a package's: 25 of `25.0.7-2~bpo12+1` and of `1:25.0.7`.
pub fn version_major(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_epoch, upstream)| upstream);
    upstream.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions() {
        let debian = System::parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n",
        );
        assert_eq!((debian.name.as_str(), debian.codename.as_str()), ("Debian GNU/Linux 12 (bookworm)", "bookworm"));
        assert!(debian.has_apt());
        assert!(System::parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"").has_apt());
        assert!(System::parse("ID='pop'\nID_LIKE='ubuntu debian'").has_apt());

        let rocky = System::parse("# comment\nNAME=Rocky\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n");
        assert!(!rocky.has_apt());
        assert_eq!((rocky.name.as_str(), rocky.codename.as_str()), ("Rocky", ""));
        assert!(rocky.packages().contains("vulkan-loader"));
        assert!(
            System::parse("ID=opensuse-tumbleweed\nID_LIKE=\"opensuse suse\"").packages().contains("libvulkan_lvp")
        );
        let unknown = System::parse("");
        assert!(!unknown.has_apt() && unknown.packages().contains("libvulkan.so.1") && unknown.name == "this system");
    }

    fn entry(uri: &str, suites: &[&str], components: &[&str], signed_by: Option<&str>) -> Source {
        let words = |list: &[&str]| list.iter().map(|word| word.to_string()).collect();
        Source {
            uri: uri.into(),
            suites: words(suites),
            components: words(components),
            signed_by: signed_by.map(Into::into),
        }
    }

    #[test]
    fn sources_of_one_line() {
        let text = "\
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian/ bookworm main contrib # ours
  deb [arch=amd64 signed-by=/k.gpg] https://m.example/debian bookworm-updates main
deb\thttp://tab.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb
";
        assert_eq!(
            parse_sources(text, false),
            [
                entry("http://mirror.example/debian/", &["bookworm"], &["main", "contrib"], None),
                entry("https://m.example/debian", &["bookworm-updates"], &["main"], Some("/k.gpg")),
                entry("http://tab.example/debian", &["bookworm"], &["main"], None),
            ]
        );
    }

    #[test]
    fn sources_of_stanzas() {
        let text = "\
Types: deb deb-src
# http://commented.example
URIs: http://mirror.example/debian
 http://second.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /k.gpg

types: deb
uris: http://security.example/debian-security
suites: bookworm-security
components: main
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm-backports
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
";
        let suites = ["bookworm", "bookworm-updates"];
        assert_eq!(
            parse_sources(text, true),
            [
                entry("http://mirror.example/debian", &suites, &["main"], Some("/k.gpg")),
                entry("http://second.example/debian", &suites, &["main"], Some("/k.gpg")),
                entry("http://security.example/debian-security", &["bookworm-security"], &["main"], None),
            ]
        );
    }

    #[test]
    fn a_suite_counts_with_its_main_component() {
        let source = entry("http://mirror.example/debian", &["bookworm-backports"], &["contrib"], None);
        assert!(!source.has("bookworm-backports"));
        assert!(Source { components: vec!["main".into()], ..source }.has("bookworm-backports"));
    }

    #[test]
    fn the_archive_of_debian() {
        let archive = |sources: &[Source]| debian_archive(sources, "bookworm").map(|source| source.uri.clone());
        let main = entry("http://mirror.example/debian", &["bookworm"], &["main"], None);
        let updates = entry("http://mirror.example/debian", &["bookworm-updates"], &["main"], None);
        let security = entry("http://mirror.example/debian-security", &["bookworm-security"], &["main"], None);
        let other = entry("https://wine.example/builds/debian/", &["bookworm"], &["main"], None);
        let tool = entry("https://tool.example/linux", &["bookworm"], &["stable"], None);

        let all = [tool.clone(), other.clone(), security.clone(), main.clone(), updates, other.clone()];
        assert_eq!(archive(&all).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(archive(&[main, other]).as_deref(), Some("http://mirror.example/debian"), "the first of equals");
        assert_eq!(archive(&[tool, security]), None);
        let oldstable = entry("http://mirror.example/debian", &["oldstable"], &["main"], None);
        assert_eq!(archive(&[oldstable]).as_deref(), Some("http://mirror.example/debian"));
        let cloud = entry("mirror+file:///etc/apt/mirrors/debian.list", &["bookworm"], &["main"], None);
        assert_eq!(archive(std::slice::from_ref(&cloud)), Some(cloud.uri));
    }

    #[test]
    fn policies() {
        let text = "\
mesa-vulkan-drivers:
  Installed: (none)
  Candidate: 22.3.6-1+deb12u2
  Version table:
     25.0.7-2~bpo12+1 100
        100 http://mirror.example/debian bookworm-backports/main amd64 Packages
     22.3.6-1+deb12u2 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
";
        assert_eq!(
            Policy::parse(text),
            Policy { installed: None, candidate: Some("22.3.6-1+deb12u2".into()), from_archive: true }
        );
        let listless = "\
mesa-vulkan-drivers:
  Installed: 23.2.1-1ubuntu3
  Candidate: 23.2.1-1ubuntu3
  Version table:
 *** 23.2.1-1ubuntu3 100
        100 /var/lib/dpkg/status
";
        let version = Some("23.2.1-1ubuntu3".to_owned());
        assert_eq!(
            Policy::parse(listless),
            Policy { installed: version.clone(), candidate: version, from_archive: false }
        );
        assert_eq!(Policy::parse(""), Policy::default());
    }

    #[test]
    fn major_versions() {
        assert_eq!(version_major("25.0.7-2~bpo12+1"), Some(25));
        assert_eq!(version_major("1:25.2.8-0ubuntu0.24.04.1"), Some(25));
        assert_eq!(version_major("22.3.6-1+deb12u2"), Some(22));
        assert_eq!(version_major("git"), None);
    }
}
