//! Measures what an adapter can do at best: copying, multiplying and adding, loading. The roofline in docs/performance.md divides by
//! these.

#[path = "common/mod.rs"]
mod common;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde::Serialize;
use wgconv::{AdapterClass, Gpu, wgpu};

use common::{Error, Result, describe};

/// Measures the peaks of an adapter: copy bandwidth, rate of multiply-adds, rate of storage loads.
///
/// Every number is the median of several dispatches, with the least and the greatest, timed by timestamp query where the adapter has
/// them, else from submission to done. A multiply-add is two operations; a copy counts what it reads and what it writes. Each result
/// is checked.
#[derive(Parser)]
struct Options {
    /// Take the adapter whose name contains this; otherwise the environment variable WGCONV_ADAPTER chooses.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Write the numbers to this file.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Dispatches to take the median of.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
}

/// Invocations of a workgroup.
const GROUP: u32 = 256;
/// Vectors that an invocation copies.
const COPIES: u32 = 8;
/// Workgroups of the shaders that compute and load: enough to fill any adapter.
const GROUPS: u32 = 2048;
/// vec4 sums of an invocation, and how often each is multiplied in one round of the loop.
const SUMS: u32 = 8;
const STEPS: u32 = 16;
/// Elements, all of them 1, that the loads go round in, and loads in one round of the loop.
const LOADED: u32 = 1024;
const LOADS: u32 = 16;
/// A dispatch is made longer until it takes so many milliseconds.
const LONG_ENOUGH: f64 = 10.0;

/// For all that is submitted.
const WAIT: wgpu::PollType = wgpu::PollType::Wait { submission_index: None, timeout: None };

/// One measured number.
#[derive(Serialize)]
struct Peak {
    name: String,
    unit: &'static str,
    min: f64,
    median: f64,
    max: f64,
}

#[derive(Serialize)]
struct Report {
    adapter: String,
    driver: String,
    /// What the times were taken by.
    clock: &'static str,
    peaks: Vec<Peak>,
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let mut builder = Gpu::builder().adapter_from_env();
    if let Some(name) = &options.adapter {
        builder = builder.adapter(name);
    }
    let meter = Meter::new(builder.build_blocking()?, options.repeat.into())?;
    let cannot_write = |path: &Path, source| Error::Io { path: path.to_path_buf(), source };
    let open = |path: &PathBuf| File::create(path).map(|file| (file, path.clone())).map_err(|e| cannot_write(path, e));
    let json = options.json.as_ref().map(open).transpose()?;
    let info = meter.gpu.adapter_info();
    println!("{}\ntimes by {}\n", describe(&info), meter.clock());
    println!("{:34} {:>10} {:>10} {:>10}", "", "median", "least", "greatest");
    let driver = [info.driver.as_str(), &info.driver_info].join(" ").trim().to_string();
    let mut report = Report { adapter: info.name, driver, clock: meter.clock(), peaks: Vec::new() };
    let mut add = |peak: Peak| {
        let Peak { name, unit, min, median, max } = &peak;
        println!("{name:34} {median:>10.1} {min:>10.1} {max:>10.1} {unit}");
        report.peaks.push(peak);
    };
    let limits = meter.gpu.device().limits();
    let software = meter.gpu.profile().class == AdapterClass::Cpu;
    let most = limits.max_storage_buffer_binding_size.min(if software { 64 << 20 } else { 1 << 30 });
    for mib in [1, 4, 16, 64, 256, 1024].into_iter().filter(|mib| mib << 20 <= most) {
        add(meter.copy(mib)?);
    }
    // How many sums take turns matters to some compilers: the registers of all of them may be too few.
    for fused in [false, true] {
        for in_turn in [1, 2, 4, 8] {
            add(meter.multiply_add(in_turn, fused)?);
        }
    }
    for element in ["f32", "vec4<f32>"] {
        add(meter.load(element)?);
    }
    if let Some((mut file, path)) = json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| cannot_write(&path, error.into()))?;
        writeln!(file, "{text}").map_err(|error| cannot_write(&path, error))?;
    }
    Ok(())
}

/// `target[i] = source[i]`.
const COPY: &str = "
@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> target_: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * GROUPu * COPIESu + lane;
BODY
}
";

/// `s = s * a + b` again and again. With `a` 0.5 and `b` 1, which the compiler does not know, every s becomes exactly 2.
const MULTIPLY_ADD: &str = "
struct Params { rounds: u32, a: f32, b: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let a = vec4(params.a);
    let b = vec4(params.b);
    let start = vec4<f32>(vec4(id.x) + vec4(0u, 1u, 2u, 3u));
START
    for (var round = 0u; round < params.rounds; round++) {
BODY
    }
    result[id.x] = dot(SUM, vec4(1.0));
}
";

/// The sum of elements that are all 1, neighbouring invocations at neighbouring elements.
const LOAD: &str = "
struct Params { rounds: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@group(0) @binding(2) var<storage, read> data: array<ELEMENT>;

@compute @workgroup_size(GROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var s = ELEMENT();
    for (var round = 0u; round < params.rounds; round++) {
        let first = id.x + round;
BODY
    }
    result[id.x] = dot(vec4<f32>(s), vec4(1.0));
}
";

/// Runs shaders and times them.
struct Meter {
    gpu: Gpu,
    repeat: usize,
    queries: Option<(wgpu::QuerySet, wgpu::Buffer)>,
}

impl Meter {
    fn new(gpu: Gpu, repeat: usize) -> Result<Self> {
        let device = gpu.device();
        let queries = device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| {
            let ty = wgpu::QueryType::Timestamp;
            let set = device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count: 2 });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            (set, buffer(device, 16, usage))
        });
        Ok(Self { gpu, repeat, queries })
    }

    fn clock(&self) -> &'static str {
        if self.queries.is_some() { "timestamp query" } else { "wall time, submission included" }
    }

    fn copy(&self, mib: u64) -> Result<Peak> {
        let bytes = mib << 20;
        let body = (0..COPIES).map(|i| format!("    target_[first + {0}u] = source[first + {0}u];\n", i * GROUP));
        let shader = self.shader(&COPY.replace("BODY", &body.collect::<String>()));
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let (source, target) = (self.buffer(bytes, storage), self.buffer(bytes, storage));
        let ones = vec![1f32; bytes as usize / 4];
        self.gpu.queue().write_buffer(&source, 0, bytemuck::cast_slice(&ones));
        let groups = (bytes / 16) as u32 / (GROUP * COPIES);
        let run = shader.on(&self.gpu, &[&source, &target]);
        let times = self.times(|| self.time(&shader, &run, groups))?;
        self.check("copy", &target, 1.0)?;
        Ok(peak(format!("copy {mib} MiB to {mib} MiB"), "GB/s", 2.0 * bytes as f64 / 1e6, times))
    }

    fn multiply_add(&self, in_turn: u32, fused: bool) -> Result<Peak> {
        let names: Vec<String> = (0..SUMS).map(|i| format!("s{i}")).collect();
        let mut body = String::new();
        for sums in names.chunks(in_turn as usize) {
            for s in (0..STEPS).flat_map(|_| sums) {
                body += &if fused {
                    format!("        {s} = fma({s}, a, b);\n")
                } else {
                    format!("        {s} = {s} * a + b;\n")
                };
            }
        }
        let start: String = (0..SUMS).map(|i| format!("    var s{i} = start + {i}.0;\n")).collect();
        let text = MULTIPLY_ADD.replace("START", &start).replace("BODY", &body).replace("SUM", &names.join(" + "));
        let each = f64::from(GROUP * GROUPS * SUMS * STEPS * 4) * 2.0;
        let form = if fused { "fma(s, a, b)" } else { "s * a + b" };
        let name = format!("multiply-add {form}, {in_turn} in turn");
        let times = self.per_round(&name, &text, None, |_| (4 * SUMS * 2) as f32)?;
        Ok(peak(name, "GFLOP/s", each / 1e6, times))
    }

    fn load(&self, element: &str) -> Result<Peak> {
        // A mask for each, so that no compiler can make one wide load of several.
        let line = |i: u32| format!("        s += data[(first + {}u) & {}u];\n", i * 61, LOADED - 1);
        let text = LOAD.replace("BODY", &(0..LOADS).map(line).collect::<String>()).replace("ELEMENT", element);
        let lanes = if element == "f32" { 1 } else { 4 };
        let data =
            self.buffer(u64::from(LOADED * lanes) * 4, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST);
        self.gpu.queue().write_buffer(&data, 0, bytemuck::cast_slice(&vec![1f32; (LOADED * lanes) as usize]));
        let name = format!("storage loads of {element}, cached");
        let times = self.per_round(&name, &text, Some(&data), |rounds| (rounds * LOADS * 4) as f32)?;
        Ok(peak(name, "Gload/s", f64::from(GROUP * GROUPS * LOADS) / 1e6, times))
    }

    /// The times of one round of a shader's loop, from dispatches long enough to be timed.
    fn per_round(
        &self,
        name: &str,
        text: &str,
        data: Option<&wgpu::Buffer>,
        expected: impl Fn(u32) -> f32,
    ) -> Result<Vec<f64>> {
        let shader = self.shader(text);
        let params = self.buffer(16, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        let result =
            self.buffer(u64::from(GROUP * GROUPS) * 4, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
        let buffers: Vec<&wgpu::Buffer> = [&params, &result].into_iter().chain(data).collect();
        let run = shader.on(&self.gpu, &buffers);
        let with = |rounds: u32| {
            let values = [rounds, 0.5f32.to_bits(), 1f32.to_bits(), 0];
            self.gpu.queue().write_buffer(&params, 0, bytemuck::cast_slice(&values));
        };
        // Enough rounds for every sum to have reached its limit.
        let mut rounds = 4;
        loop {
            with(rounds);
            if self.time(&shader, &run, GROUPS)? >= LONG_ENOUGH || rounds >= 1 << 16 {
                break;
            }
            rounds *= 2;
        }
        let times = self.times(|| self.time(&shader, &run, GROUPS))?;
        self.check(name, &result, expected(rounds))?;
        Ok(times.into_iter().map(|time| time / f64::from(rounds)).collect())
    }

    /// After one that does not count.
    fn times(&self, run: impl Fn() -> Result<f64>) -> Result<Vec<f64>> {
        run()?;
        (0..self.repeat).map(|_| run()).collect()
    }

    /// Milliseconds of one dispatch.
    fn time(&self, shader: &Shader, run: &wgpu::BindGroup, groups: u32) -> Result<f64> {
        let (device, queue) = (self.gpu.device(), self.gpu.queue());
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = self.queries.as_ref().map(|(query_set, _)| wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        pass.set_pipeline(&shader.pipeline);
        pass.set_bind_group(0, run, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
        drop(pass);
        if let Some((set, resolved)) = &self.queries {
            encoder.resolve_query_set(set, 0..2, resolved, 0);
        }
        let start = Instant::now();
        queue.submit([encoder.finish()]);
        device.poll(WAIT).map_err(failed)?;
        let wall = start.elapsed().as_secs_f64() * 1e3;
        let Some((_, resolved)) = &self.queries else { return Ok(wall) };
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&self.read(resolved)?);
        Ok((ticks[1].saturating_sub(ticks[0])) as f64 * f64::from(queue.get_timestamp_period()) / 1e6)
    }

    /// Fails where a result is not what the shader must give, since then its time means nothing.
    fn check(&self, name: &str, buffer: &wgpu::Buffer, expected: f32) -> Result<()> {
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&self.read(buffer)?);
        match values.iter().position(|&value| value != expected) {
            None => Ok(()),
            Some(i) => Err(Error::Failed(format!("{name}: element {i} is {} and must be {expected}", values[i]))),
        }
    }

    fn read(&self, from: &wgpu::Buffer) -> Result<Vec<u8>> {
        let staging = self.buffer(from.size(), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(from, 0, &staging, 0, from.size());
        self.gpu.queue().submit([encoder.finish()]);
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |mapped| {
            let _ = sender.send(mapped);
        });
        self.gpu.device().poll(WAIT).map_err(failed)?;
        receiver.recv().map_err(failed)?.map_err(failed)?;
        let view = staging.get_mapped_range(..).map_err(failed)?;
        Ok(view.to_vec())
    }

    fn buffer(&self, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        buffer(self.gpu.device(), size, usage)
    }

    fn shader(&self, text: &str) -> Shader {
        let text = text.replace("GROUP", &GROUP.to_string()).replace("COPIES", &COPIES.to_string());
        let device = self.gpu.device();
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        Shader { pipeline }
    }
}

struct Shader {
    pipeline: wgpu::ComputePipeline,
}

impl Shader {
    /// Binds buffers in order.
    fn on(&self, gpu: &Gpu, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
        let entries = buffers.iter().zip(0..).map(|(buffer, binding)| {
            let resource = buffer.as_entire_binding();
            wgpu::BindGroupEntry { binding, resource }
        });
        gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &entries.collect::<Vec<_>>(),
        })
    }
}

fn buffer(device: &wgpu::Device, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

/// `amount` a millisecond at these times.
fn peak(name: String, unit: &'static str, amount: f64, mut times: Vec<f64>) -> Peak {
    let median = amount / common::median(&mut times);
    let (least, greatest) = (times.first().copied(), times.last().copied());
    let rate = |time: Option<f64>| amount / time.unwrap_or(f64::NAN);
    Peak { name, unit, min: rate(greatest), median, max: rate(least) }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(format!("the device: {error}"))
}
