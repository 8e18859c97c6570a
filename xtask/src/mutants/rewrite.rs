//! One source that holds every mutant.

use std::{collections::BTreeSet, ops::Range};

use super::sites::Site;

/// A rewritten source, and where its mutants lie.
pub struct Rewritten {
    pub text: String,
    /// Bytes of what a mutant does instead.
    branches: Vec<(Range<usize>, usize)>,
    /// Bytes of a site and all its mutants, those inside it left out.
    sites: Vec<(Range<usize>, Vec<usize>)>,
}

impl Rewritten {
    /// The mutants that an error of the compiler is about: the one in whose text it lies, or those of the innermost site around it.
    pub fn blamed(&self, error: &Range<usize>) -> Vec<usize> {
        let around = |range: &Range<usize>| range.start <= error.start && error.end <= range.end;
        if let Some((_, mutant)) = self.branches.iter().find(|(range, _)| around(range)) {
            return vec![*mutant];
        }
        let sites = self.sites.iter().filter(|(range, mutants)| around(range) && !mutants.is_empty());
        sites.min_by_key(|(range, _)| range.len()).map_or(vec![], |(_, mutants)| mutants.clone())
    }
}

/// Rewrites a source. Its mutants have the numbers from `first` on, in the order of the sites; those `left_out` do not get in.
pub fn rewrite(source: &str, sites: &[Site], first: usize, left_out: &BTreeSet<usize>) -> Rewritten {
    let mut number = first;
    let numbered = sites.iter().map(|site| {
        let start = number;
        number += site.changes.len();
        (
            site,
            (start..number)
                .filter(|mutant| !left_out.contains(mutant))
                .map(|mutant| (mutant, mutant - start))
                .collect(),
        )
    });
    let mut writer = Writer {
        source,
        sites: numbered.collect(),
        next: 0,
        rewritten: Rewritten { text: String::new(), branches: Vec::new(), sites: Vec::new() },
    };
    writer.copy(0..source.len());
    writer.rewritten
}

struct Writer<'a> {
    source: &'a str,
    /// Each with its mutants: the number, and which change of the site it is.
    sites: Vec<(&'a Site, Vec<(usize, usize)>)>,
    next: usize,
    rewritten: Rewritten,
}

impl Writer<'_> {
    /// Copies a part of the source, its sites rewritten.
    fn copy(&mut self, range: Range<usize>) {
        let mut at = range.start;
        while let Some(site) = self.upcoming().filter(|site| site.start < range.end) {
            self.push(&self.source[at..site.start]);
            self.site(self.next);
            at = site.end;
        }
        self.push(&self.source[at..range.end]);
    }

    fn upcoming(&self) -> Option<Range<usize>> {
        self.sites.get(self.next).map(|(site, _)| site.range.clone())
    }

    fn site(&mut self, index: usize) {
        self.next = index + 1;
        let (site, mutants) = self.sites[index].clone();
        let start = self.rewritten.text.len();
        if site.range.is_empty() {
            for (mutant, change) in &mutants {
                self.push(&format!(" if crate::mutant::is({mutant}) {{ return "));
                self.branch(*mutant, &site.changes[*change].text);
                self.push("; }");
            }
        } else if mutants.is_empty() {
            self.copy(site.range.clone());
        } else {
            // What is mutated has no mutants inside: one is asked for at a time, and the text would grow with the depth's power of two.
            self.push("(");
            for (mutant, change) in &mutants {
                self.push(&format!("if crate::mutant::is({mutant}) {{ "));
                self.branch(*mutant, &site.changes[*change].text);
                self.push(" } else ");
            }
            self.push("{ (");
            self.copy(site.range.clone());
            self.push(") })");
        }
        let range = start..self.rewritten.text.len();
        self.rewritten.sites.push((range, mutants.into_iter().map(|(mutant, _)| mutant).collect()));
    }

    fn branch(&mut self, mutant: usize, text: &str) {
        let start = self.rewritten.text.len();
        self.push(&format!("({text})"));
        self.rewritten.branches.push((start..self.rewritten.text.len(), mutant));
    }

    fn push(&mut self, text: &str) {
        self.rewritten.text.push_str(text);
    }
}

/// The module that says which mutant is asked for. Its number is read once; 0, which no mutant has, where none is.
pub const MODULE: &str = r#"use std::sync::atomic::{AtomicUsize, Ordering};

static ASKED: AtomicUsize = AtomicUsize::new(usize::MAX);

#[inline]
pub(crate) fn is(number: usize) -> bool {
    let asked = ASKED.load(Ordering::Relaxed);
    number == if asked == usize::MAX { read() } else { asked }
}

#[cold]
fn read() -> usize {
    let number = std::env::var("WGCONV_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
    ASKED.store(number, Ordering::Relaxed);
    number
}
"#;

/// The crate's root with that module. Mutants compare what is always true, leave code unused and worse.
pub fn root(source: &str) -> String {
    format!("#![allow(warnings, unconditional_panic, arithmetic_overflow)]{source}\nmod mutant;\n")
}

#[cfg(test)]
mod tests {
    use super::{super::sites, *};

    #[test]
    fn mutants_beside_the_original() {
        let source = "fn f(a: u32) -> u32 { a + 3 }";
        let sites = sites::find(source, None).expect("sites");
        let whole = rewrite(source, &sites, 7, &BTreeSet::new());
        assert_eq!(
            whole.text,
            "fn f(a: u32) -> u32 { if crate::mutant::is(7) { return (1); } \
             (if crate::mutant::is(8) { ((a) - (3)) } else { (a + (if crate::mutant::is(9) { (4) } else { (3) })) }) }"
        );
        let at = |text: &str| whole.text.find(text).map(|start| start..start + text.len()).expect("text");
        assert_eq!(whole.blamed(&at("(a) -")), [8]);
        assert_eq!(whole.blamed(&at("a + (")), [8]);
        assert_eq!(whole.blamed(&at("(4)")), [9]);
        assert_eq!(whole.blamed(&at("fn f")), [0; 0]);
        let part = rewrite(source, &sites, 7, &BTreeSet::from([7, 8]));
        assert_eq!(part.text, "fn f(a: u32) -> u32 { a + (if crate::mutant::is(9) { (4) } else { (3) }) }");
    }
}
