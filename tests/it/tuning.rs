//! Tuning by measurement, warm-up, and what outlives a process.

use std::path::Path;

use tempfile::tempdir;
use wgconv::reference::{ConvSpec, conv};
use wgconv::{
    Activation, Cache, Conv2d, ConvKernel, ConvTranspose2d, DeformConv2d, Error, Gpu, GpuBuilder, Involution2d, Linear,
    MaxPool2d, Result, Tensor, Tuning, ndarray, wgpu,
};

use crate::common::{assert_exact, integers};

fn builder(folder: &Path) -> GpuBuilder {
    Gpu::builder().adapter_from_env().cache(Cache::Folder(folder.into()))
}

fn upload(gpu: &Gpu, shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_array(gpu, &integers(shape, seed, 3)).expect("upload")
}

/// The only table in a folder.
fn table(folder: &Path) -> serde_json::Value {
    let mut tables = std::fs::read_dir(folder).expect("folder").filter_map(|entry| {
        let path = entry.expect("entry").path();
        path.extension().is_some_and(|extension| extension == "json").then_some(path)
    });
    let path = tables.next().expect("a table");
    assert!(tables.next().is_none(), "one table");
    serde_json::from_slice(&std::fs::read(path).expect("table")).expect("JSON")
}

/// A call that has several kernels, its result and what it should be.
fn call(gpu: &Gpu, conv: &Conv2d) -> Result<ndarray::ArrayD<f32>> {
    let (x, w) = (upload(gpu, &[1, 8, 6, 6], 1), upload(gpu, &[16, 8, 1, 1], 2));
    conv.forward(&x, &w, Some(&upload(gpu, &[16], 3)))?.to_array()
}

fn want() -> ndarray::ArrayD<f64> {
    let arrays = [integers(&[1, 8, 6, 6], 1, 3), integers(&[16, 8, 1, 1], 2, 3), integers(&[16], 3, 3)];
    conv(arrays[0].view(), arrays[1].view(), Some(arrays[2].view()), &ConvSpec::new(2)).expect("reference")
}

/// Every operator that has several kernels measures them once, on first use, and says the same in the next process without measuring.
#[test]
fn measures_once_and_remembers() {
    let folder = tempdir().expect("folder");
    let run = |gpu: &Gpu| -> Result<()> {
        let tensor = |shape: &[usize]| upload(gpu, shape, 5);
        let (x, w) = (tensor(&[1, 8, 6, 6]), tensor(&[8, 8, 3, 3]));
        let conv = Conv2d::new().padding(1).activation(Activation::Relu).residual(&x);
        conv.forward(&x, &w, Some(&tensor(&[8])))?;
        // The kernels that round most.
        Conv2d::new().padding(1).fast_math(true).forward(&tensor(&[1, 64, 9, 9]), &tensor(&[64, 64, 3, 3]), None)?;
        Conv2d::new().padding(1).groups(8).forward(&x, &tensor(&[8, 1, 3, 3]), None)?;
        ConvTranspose2d::new().stride(2).forward(&x, &w, None)?;
        DeformConv2d::new().padding(1).forward(&x, &tensor(&[1, 18, 6, 6]), &w, None, Some(&tensor(&[1, 9, 6, 6])))?;
        Involution2d::new().padding(1).forward(&x, &tensor(&[1, 1, 3, 3, 6, 6]), None)?;
        Linear::new().forward(&tensor(&[32, 8]), &tensor(&[16, 8]), None)?;
        gpu.wait()
    };
    let gpu = builder(folder.path()).tuning(Tuning::Measure).build_blocking().expect("gpu");
    run(&gpu).expect("first");
    let first = table(folder.path());
    let problems = first["problems"].as_object().expect("problems").clone();
    for op in ["conv2d", "conv_transpose2d", "deform_conv2d", "involution2d", "linear"] {
        // Without subgroups an operator may have one kernel only.
        let several = problems.iter().filter(|(key, _)| key.starts_with(&format!("{op} "))).count();
        assert!(several > 0 || gpu.profile().subgroup.is_none(), "{op}: {problems:?}");
    }
    for (key, entry) in &problems {
        let measured = entry["microseconds"].as_object().expect("times");
        assert!(measured.len() > 1 && entry.get("wrong").is_none(), "{key}: {entry}");
        assert!(measured.values().all(|time| time.as_f64().is_some_and(|time| time > 0.0)), "{key}: {entry}");
    }
    let before = gpu.counters();
    run(&gpu).expect("again");
    assert_eq!(gpu.counters().pipelines, before.pipelines);
    assert_eq!(gpu.counters().submissions, before.submissions + 1, "nothing is measured again");
    drop(gpu);
    // The next process: what is compiled is what is taken.
    let gpu = builder(folder.path()).tuning(Tuning::Measure).build_blocking().expect("gpu");
    run(&gpu).expect("second process");
    assert!(gpu.counters().pipelines < before.pipelines && gpu.counters().submissions == 1);
    assert_eq!(table(folder.path()), first);
}

/// Tables say which kernel is taken, as long as it is offered; a kernel asked for by name wins.
#[test]
fn a_table_decides_unless_a_kernel_is_named() {
    let folder = tempdir().expect("folder");
    let path = folder.path().join("shipped.json");
    let gpu = builder(folder.path()).tuning(Tuning::Measure).build_blocking().expect("gpu");
    let conv = Conv2d::new();
    let offered = conv.candidates(gpu.profile(), &[1, 8, 6, 6], &[16, 8, 1, 1]).expect("candidates");
    assert_exact("measured", &call(&gpu, &conv).expect("call"), &want());
    if offered.len() < 2 {
        return;
    }
    gpu.save_tuning(&path).expect("save");
    let text = std::fs::read_to_string(&path).expect("table");
    let kernels = |gpu: &Gpu, conv: &Conv2d| -> Vec<String> {
        let times = gpu.time_kernels(|| call(gpu, conv).map(drop)).expect("time");
        times.into_iter().map(|time| time.kernel).collect()
    };
    let direct = |gpu: &Gpu, conv: &Conv2d| kernels(gpu, conv).iter().any(|name| name.starts_with("conv/direct.wgsl"));
    // `direct` is made the fastest, which no rule says; then a kernel that nobody knows, so that the rules count.
    for (name, taken) in [("direct", true), ("nonesuch", false)] {
        let mut table: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for entry in table["problems"].as_object_mut().expect("problems").values_mut() {
            entry["microseconds"] = serde_json::json!({ name: 0.001 });
        }
        std::fs::write(&path, table.to_string()).expect("write");
        let gpu = builder(folder.path()).tuning(Tuning::File(path.clone())).build_blocking().expect("gpu");
        if gpu.time_kernels(|| Ok(())).is_ok() {
            assert_eq!(direct(&gpu, &conv), taken, "{name}");
            assert!(!direct(&gpu, &conv.clone().kernel(offered[0])));
            assert!(direct(&gpu, &conv.clone().kernel(ConvKernel::Direct)));
        }
        assert_exact(name, &call(&gpu, &conv).expect("call"), &want());
        // Read only.
        assert_eq!(std::fs::read_to_string(&path).expect("table"), table.to_string());
        // A table of another adapter says nothing about this one.
        table["adapter"] = "another".into();
        std::fs::write(&path, table.to_string()).expect("write");
        let gpu = builder(folder.path()).tuning(Tuning::File(path.clone())).build_blocking().expect("gpu");
        assert!(!direct(&gpu, &conv));
    }
}

#[test]
fn a_broken_table_is_an_error_at_build_time() {
    let folder = tempdir().expect("folder");
    let path = folder.path().join("table.json");
    let build = || builder(folder.path()).tuning(Tuning::File(path.clone())).build_blocking();
    for contents in [None, Some(""), Some("{"), Some("{\"adapter\": 1}"), Some("not JSON")] {
        if let Some(contents) = contents {
            std::fs::write(&path, contents).expect("write");
        }
        match build() {
            Err(Error::File { path: named, reason }) => assert!(named == path && !reason.is_empty()),
            other => panic!("{contents:?}: {other:?}"),
        }
    }
}

/// A folder that cannot be written to costs nothing but the memory of it.
#[test]
fn a_folder_that_is_none_is_no_error() {
    let folder = tempdir().expect("folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").expect("write");
    let gpu = builder(&file).tuning(Tuning::Measure).build_blocking().expect("gpu");
    assert_exact("measured", &call(&gpu, &Conv2d::new()).expect("call"), &want());
    let elsewhere = gpu.save_tuning(file.join("table.json"));
    assert!(matches!(elsewhere, Err(Error::File { .. })), "{elsewhere:?}");
}

/// Measuring within a measurement of the user's leaves no trace there, and threads measure one after the other.
#[test]
fn measuring_leaves_the_rest_alone() {
    let gpu = builder(Path::new("")).cache(Cache::Off).tuning(Tuning::Measure).build_blocking().expect("gpu");
    let times = gpu.time_kernels(|| call(&gpu, &Conv2d::new()).map(drop)).expect("time");
    assert!(times.len() <= 3, "{times:?}");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_exact("thread", &call(&gpu, &Conv2d::new()).expect("call"), &want()));
        }
    });
}

/// After a warm-up nothing is compiled any more, packing included.
#[test]
fn warm_up_compiles_all() -> Result<()> {
    let gpu = builder(Path::new("")).cache(Cache::Off).build_blocking()?;
    let tensor = |shape: &[usize]| upload(&gpu, shape, 5);
    let (xs, ws) = ([1, 8, 6, 6], [8, 8, 3, 3]);
    let (x, w, offset, mask) = (tensor(&xs), tensor(&ws), tensor(&[1, 18, 6, 6]), tensor(&[1, 9, 6, 6]));
    let (conv, transposed) = (Conv2d::new().padding(1), ConvTranspose2d::new().stride(2));
    let (deform, pool) = (DeformConv2d::new().padding(1), MaxPool2d::new(2));
    conv.warm_up(&gpu, &xs, &ws, false)?;
    transposed.warm_up(&gpu, &xs, &ws, true)?;
    deform.warm_up(&gpu, &xs, &ws, false, true)?;
    // A small input of few channels may come in a buffer of ours or of the caller's.
    let (small, few) = ([3, 1, 28, 28], [16, 1, 3, 3]);
    deform.warm_up(&gpu, &small, &few, false, false)?;
    pool.warm_up(&gpu, &xs)?;
    Linear::new().warm_up(&gpu, &[32, 8], &[16, 8], false)?;
    assert!(conv.warm_up(&gpu, &xs, &[8, 7, 3, 3], false).is_err());
    let before = gpu.counters();
    assert!(before.pipelines >= 5);
    conv.forward(&x, &w, None)?;
    transposed.forward(&x, &w, Some(&tensor(&[8])))?;
    deform.forward(&x, &offset, &w, None, Some(&mask))?;
    let raw = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 3 * 28 * 28 * 4,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    for x in [tensor(&small), Tensor::from_buffer(&gpu, raw, &small)?] {
        deform.forward(&x, &tensor(&[3, 18, 28, 28]), &tensor(&few), None, None)?;
    }
    pool.forward(&x)?;
    Linear::new().forward(&tensor(&[32, 8]), &tensor(&[16, 8]), None)?;
    gpu.wait()?;
    assert_eq!(gpu.counters().pipelines, before.pipelines);
    Ok(())
}

/// The pipeline cache is written and read back; a file that is damaged, or one of something else, is not handed to the driver.
#[test]
fn pipelines_are_kept_in_a_file() {
    let folder = tempdir().expect("folder");
    let cached = || {
        let mut files = std::fs::read_dir(folder.path()).expect("folder").map(|entry| entry.expect("entry").path());
        files.find(|path| path.extension().is_some_and(|extension| extension == "bin"))
    };
    let gpu = builder(folder.path()).build_blocking().expect("gpu");
    assert_exact("first", &call(&gpu, &Conv2d::new()).expect("call"), &want());
    assert!(cached().is_none(), "nothing is written before the end");
    drop(gpu);
    let Some(file) = cached() else { return }; // No backend but Vulkan has a cache.
    let whole = std::fs::read(&file).expect("file");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for contents in [whole.clone(), damaged, whole[..whole.len() - 1].to_vec(), Vec::new(), vec![7; 4096]] {
        std::fs::write(&file, &contents).expect("write");
        let gpu = builder(folder.path()).build_blocking().expect("gpu");
        assert_exact("again", &call(&gpu, &Conv2d::new()).expect("call"), &want());
        gpu.save_pipeline_cache().expect("save");
        assert!(std::fs::read(&file).expect("file").starts_with(&whole[..8]));
    }
    std::fs::remove_file(&file).expect("remove");
    drop(builder(folder.path()).build_blocking().expect("gpu"));
    assert!(cached().is_none(), "nothing was compiled, nothing is written");
    let gpu = builder(folder.path()).cache(Cache::Off).build_blocking().expect("gpu");
    assert_exact("off", &call(&gpu, &Conv2d::new()).expect("call"), &want());
    gpu.save_pipeline_cache().expect("nothing to save");
    drop(gpu);
    assert!(cached().is_none(), "the cache is off");
}
