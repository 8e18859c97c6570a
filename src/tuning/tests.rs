use std::collections::BTreeMap;

use super::table::{Entry, Table};
use super::{Tunable, Tuner, Tuning};
use crate::error::{Error, Result};
use crate::ops::Epilogue;
use crate::ops::activation::Activation;
use crate::ops::conv::choose;
use crate::ops::conv::problem::Problem;
use crate::ops::conv::tune::Asked;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::{Cache, Conv2d, ConvKernel, Gpu, Padding, wgpu};

fn info(driver_info: &str) -> wgpu::AdapterInfo {
    let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::Cpu, wgpu::Backend::Vulkan);
    (info.name, info.driver, info.driver_info) = ("A (B) 1/2".into(), "d".into(), driver_info.into());
    info
}

/// Three kernels of which only the names matter.
struct Three;

impl Tunable for Three {
    type Kernel = usize;
    const AUTO: usize = 3;
    const REFERENCE: usize = 0;

    fn name(kernel: usize) -> &'static str {
        ["direct", "wide", "long", "auto"][kernel]
    }

    fn candidates(&self, _: &Profile) -> Result<Vec<usize>> {
        Ok(vec![1, 2, 0])
    }

    fn plan(&self, kernel: usize, _: &Profile) -> Result<Plan> {
        Err(Error::invalid("three", "kernel", "none", kernel))
    }

    fn key(&self) -> String {
        "three".into()
    }

    fn arguments(&self) -> Vec<(&'static str, Option<Vec<usize>>)> {
        Vec::new()
    }

    fn products(&self) -> u64 {
        1
    }
}

fn entry(times: &[(&str, f64)], wrong: &[&str]) -> Entry {
    Entry {
        microseconds: times.iter().map(|&(name, time)| (name.to_string(), time)).collect(),
        wrong: wrong.iter().map(|name| (name.to_string(), "off".into())).collect(),
    }
}

/// The kernel found by a table with that entry alone.
fn found(entry: Entry, measures: bool, offered: &[usize]) -> Option<usize> {
    let table = Table { problems: BTreeMap::from([("three".into(), entry)]), ..Table::of(&info("1")) };
    let tuner = Tuner { measures, table: Some(table.into()), ..Tuner::default() };
    assert_eq!(tuner.find::<Three>("four", offered), None);
    tuner.find::<Three>("three", offered)
}

#[test]
fn the_fastest_that_is_offered_is_taken() {
    let all = || entry(&[("direct", 3.0), ("wide", 2.0), ("long", 1.0)], &[]);
    for measures in [false, true] {
        assert_eq!(found(all(), measures, &[1, 2, 0]), Some(2));
        assert_eq!(found(all(), measures, &[1, 0]), Some(1));
        assert_eq!(found(entry(&[("direct", 3.0), ("wide", 2.0)], &["long"]), measures, &[2, 1, 0]), Some(1));
    }
    // A kernel that was not measured: measured where that is asked for, left out where not.
    let some = || entry(&[("direct", 3.0), ("wide", 2.0)], &[]);
    assert_eq!(found(some(), true, &[1, 2, 0]), None);
    assert_eq!(found(some(), false, &[1, 2, 0]), Some(1));
    // Nothing but what must not be taken.
    assert_eq!(found(entry(&[], &["wide"]), false, &[1, 2, 0]), Some(2));
    assert_eq!(found(entry(&[("other", 1.0)], &[]), false, &[1, 2, 0]), Some(1));
}

#[test]
fn a_file_is_read_back_and_whatever_else_is_not_a_table() {
    let folder = tempfile::tempdir().expect("folder");
    let mut table = Table::of(&info("1"));
    table.problems.insert("three".into(), entry(&[("direct", 3.25)], &["wide"]));
    let path = folder.path().join("deep").join(table.file_name());
    table.write(&path).expect("write");
    assert_eq!(Table::read(&path).expect("read"), table);
    let text = std::fs::read(&path).expect("bytes");
    // The closing brace and the line's end.
    for length in 0..text.len() - 1 {
        std::fs::write(&path, &text[..length]).expect("cut");
        assert!(matches!(Table::read(&path), Err(Error::File { .. })), "cut off after {length} bytes");
    }
    assert!(matches!(Table::read(folder.path()), Err(Error::File { .. })), "a folder");
    assert!(matches!(Table::read(&folder.path().join("none")), Err(Error::File { .. })), "none");
}

#[test]
fn another_adapter_driver_or_version_starts_afresh() {
    let folder = tempfile::tempdir().expect("folder");
    let open = |driver| Tuner::open(Tuning::Measure, &info(driver), Some(folder.path())).expect("tuner");
    let kept = entry(&[("direct", 3.0), ("wide", 2.0), ("long", 1.0)], &[]);
    open("1").remember("three".into(), kept);
    assert_eq!(open("1").find::<Three>("three", &[1, 2, 0]), Some(2));
    assert_eq!(open("2").find::<Three>("three", &[1, 2, 0]), None);
    // The same file with another driver's name inside, then cut off, then something else.
    let path = folder.path().join(Table::of(&info("1")).file_name());
    let text = std::fs::read_to_string(&path).expect("file");
    for other in [text.replace("\"driver_info\": \"1\"", "\"driver_info\": \"3\""), text[..40].into(), "[]".into()] {
        std::fs::write(&path, other).expect("write");
        assert_eq!(open("1").find::<Three>("three", &[1, 2, 0]), None);
    }
}

#[test]
fn two_processes_keep_each_others_measurements() {
    let folder = tempfile::tempdir().expect("folder");
    let open = || Tuner::open(Tuning::Measure, &info("1"), Some(folder.path())).expect("tuner");
    let (a, b) = (open(), open());
    a.remember("one".into(), entry(&[("direct", 1.0)], &[]));
    b.remember("two".into(), entry(&[("direct", 2.0)], &[]));
    let c = open();
    assert!(c.find::<Three>("one", &[0]).is_some() && c.find::<Three>("two", &[0]).is_some());
}

/// A convolution with a right kernel and three that are not: one mirrors the weight, one writes nothing, one has no plan.
struct Faulty(Problem);

impl Tunable for Faulty {
    type Kernel = &'static str;
    const AUTO: &'static str = "auto";
    const REFERENCE: &'static str = "direct";

    fn name(kernel: &'static str) -> &'static str {
        kernel
    }

    fn candidates(&self, _: &Profile) -> Result<Vec<&'static str>> {
        Ok(vec!["mirrored", "idle", "planless", "direct"])
    }

    fn plan(&self, kernel: &'static str, profile: &Profile) -> Result<Plan> {
        let problem = Problem { flip: kernel == "mirrored", ..self.0.clone() };
        let plan = choose::plan(&problem, &Epilogue::default(), ConvKernel::Direct, profile)?;
        match kernel {
            "planless" => Err(Error::invalid("conv2d", "kernel", "another", kernel)),
            "idle" => Ok(Plan { kernel, steps: Vec::new(), ..plan }),
            _ => Ok(Plan { kernel, ..plan }),
        }
    }

    fn key(&self) -> String {
        "faulty".into()
    }

    fn arguments(&self) -> Vec<(&'static str, Option<Vec<usize>>)> {
        let shapes = [("input", Some(vec![1, 4, 9, 8])), ("weight", Some(vec![6, 4, 3, 3]))];
        shapes.into_iter().chain([("bias", None), ("residual", None)]).collect()
    }

    fn products(&self) -> u64 {
        self.0.taps() * u64::from(self.0.cg())
    }
}

/// A wrong kernel is never taken, however fast, and not in the next process either.
#[test]
fn a_wrong_kernel_is_left_out_and_remembered() {
    let folder = tempfile::tempdir().expect("folder");
    let problem = Faulty(Problem::new(&Conv2d::new(), &[1, 4, 9, 8], &[6, 4, 3, 3]).expect("problem"));
    for process in 0..2 {
        let builder = Gpu::builder().adapter_from_env().cache(Cache::Folder(folder.path().into()));
        let gpu = builder.tuning(Tuning::Measure).build_blocking().expect("adapter");
        let plan = super::plan(&gpu, &problem, "auto").expect("plan");
        assert_eq!(plan.kernel(), "direct");
        assert_eq!(gpu.counters().submissions > 0, process == 0, "measured in the first process alone");
        let path = folder.path().join(Table::of(&gpu.adapter_info()).file_name());
        let entry = Table::read(&path).expect("table").problems["faulty"].clone();
        assert_eq!(entry.microseconds.keys().collect::<Vec<_>>(), ["direct"]);
        assert!(entry.wrong["mirrored"].starts_with("element ") && entry.wrong["idle"].contains("NaN"), "{entry:?}");
        assert!(entry.wrong["planless"].contains("expected another"), "{entry:?}");
        // Named, it is what the caller gets.
        assert_eq!(super::plan(&gpu, &problem, "mirrored").expect("plan").kernel(), "mirrored");
    }
}

/// Written down, since files of users hold it.
#[test]
fn the_key_of_a_problem() {
    let conv = Conv2d::new().padding(Padding::Same).stride([2, 1]).groups(2);
    let (input, weight) = ([1, 4, 9, 8], [6, 2, 3, 3]);
    let problem = Problem::new(&conv, &input, &weight).expect("problem");
    let epilogue = Epilogue { has_bias: true, has_residual: false, activation: Activation::LeakyRelu(0.1) };
    let key = Asked { problem: &problem, epilogue, input: &input, weight: &weight }.key();
    assert_eq!(
        key,
        "conv2d input=1x4x9x8 weight=6x2x3x3 output=1x6x5x8 stride=2x1 dilation=1x1 padding=1x1 groups=2 border=Zeros \
         flip=false residual=false activation=LeakyRelu"
    );
}
