//! An application that owns its wgpu device links the crate: its own pass paints an image into its own buffer, `Conv2d` finds the
//! edges in that buffer, another pass of its own counts them. One command encoder, one submission; only the counts reach the host.

#[path = "common/mod.rs"]
mod common;

use std::process::ExitCode;

use clap::Parser;
use wgconv::ndarray::{Array4, ArrayD};
use wgconv::reference::{self, ConvSpec};
use wgconv::{Conv2d, Gpu, Tensor, wgpu};

use common::{Error, Result};

/// Shares a wgpu device with an application: paint, convolve and count in one submission, without a copy to the host between.
#[derive(Parser)]
struct Options {
    /// The adapter whose name contains this (else WGCONV_ADAPTER, else a discrete GPU before others).
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

/// Edge of the square image.
const SIZE: u32 = 512;
const BINS: usize = 16;

/// The application's own shaders. Its image is a zone plate of 16 grey levels, its result a histogram of the edges' strength.
const SHADERS: &str = "
@group(0) @binding(0) var<storage, read_write> image: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> bins: array<atomic<u32>, 16>;

const SIZE = 512u;

@compute @workgroup_size(8, 8)
fn paint(@builtin(global_invocation_id) id: vec3<u32>) {
    let offset = vec2<i32>(id.xy) - i32(SIZE / 2u);
    image[id.y * SIZE + id.x] = f32((offset.x * offset.x + offset.y * offset.y) / 64 % 16);
}

// Plane 0 is the gradient along x, plane 1 along y.
@compute @workgroup_size(64)
fn count(@builtin(global_invocation_id) id: vec3<u32>) {
    let strength = abs(gradient[id.x]) + abs(gradient[id.x + SIZE * SIZE]);
    atomicAdd(&bins[min(u32(strength / 6.0), 15u)], 1u);
}
";

/// Sobel's two kernels, `[2, 1, 3, 3]`. Small integers on small integers: the GPU's result is exact.
fn sobel() -> Array4<f32> {
    let x = [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]];
    Array4::from_shape_fn((2, 1, 3, 3), |(axis, _, i, j)| if axis == 0 { x[i][j] } else { x[j][i] })
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let expected = on_cpu()?;
    let Some(adapter) = choose_adapter(options.adapter.as_deref())? else {
        common::say_no_adapter();
        print_histogram(&expected);
        return Ok(());
    };
    println!("adapter  {}", common::describe(&adapter.get_info()));
    let histogram = on_gpu(&adapter)?;
    print_histogram(&histogram);
    if histogram != expected {
        return Err(Error::Failed(format!("the CPU reference counts {expected:?}, the GPU {histogram:?}")));
    }
    println!("\nThe same counts as the CPU reference's.");
    Ok(())
}

/// The application's choice, which is not the crate's business.
fn choose_adapter(named: Option<&str>) -> Result<Option<wgpu::Adapter>> {
    let env = std::env::var("WGCONV_ADAPTER").unwrap_or_default();
    let part = named.unwrap_or(&env).to_lowercase();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all() - wgpu::Backends::NOOP));
    let found: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
        wgpu::DeviceType::Cpu => 3,
    });
    match adapters.into_iter().find(|adapter| adapter.get_info().name.to_lowercase().contains(&part)) {
        None if !found.is_empty() => Err(wgconv::Error::NoAdapter { wanted: format!("named {part}"), found }.into()),
        adapter => Ok(adapter),
    }
}

fn on_gpu(adapter: &wgpu::Adapter) -> Result<Vec<u32>> {
    // The application opens its device. With subgroups the crate has faster kernels to choose from.
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("application"),
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let name = adapter.get_info().name;
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
        .map_err(|error| wgconv::Error::NoDevice { adapter: name, reason: error.to_string() })?;
    let buffer = |label, elements: u32, usage| {
        let size = u64::from(elements) * 4;
        device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
    };
    let image = buffer("image", SIZE * SIZE, wgpu::BufferUsages::STORAGE);
    let bins = buffer("bins", BINS as u32, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
    let counts = buffer("counts", BINS as u32, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);

    // The crate takes the device, and the image's buffer as a tensor.
    let gpu = Gpu::from_wgpu(device.clone(), queue.clone())?;
    let image_tensor = Tensor::from_buffer(&gpu, image.clone(), &[1, 1, SIZE as usize, SIZE as usize])?;
    let weight = Tensor::from_array(&gpu, &sobel())?;
    gpu.submit()?; // The upload, once for all frames.

    let application = Application::new(&device);
    let before = gpu.counters().submissions;
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("frame") });
    application.pass(&mut encoder, "paint", &[(0, &image)], [SIZE / 8, SIZE / 8]);
    let encoded = Conv2d::new().padding(1).encode(&mut encoder, &image_tensor, &weight, None)?;
    application.pass(&mut encoder, "count", &[(1, encoded.output().buffer()?), (2, &bins)], [SIZE * SIZE / 64, 1]);
    encoder.copy_buffer_to_buffer(&bins, 0, &counts, 0, counts.size());
    let submission = queue.submit([encoder.finish()]);
    let gradient = encoded.submitted();

    println!("\n  paint    application  {SIZE}x{SIZE} zone plate into its own buffer");
    let plan = Conv2d::new().padding(1).plan(gpu.profile(), image_tensor.shape(), weight.shape())?;
    println!("  conv2d   wgconv       Sobel along x and y, {:?}, kernel {}", gradient.shape(), plan.kernel());
    println!("  count    application  histogram of the edges' strength");
    let by_crate = gpu.counters().submissions - before;
    println!("\n1 submission by the application, {by_crate} by the crate; {} bytes read back.\n", counts.size());

    let (sender, receiver) = std::sync::mpsc::channel();
    counts.map_async(wgpu::MapMode::Read, .., move |mapped| {
        let _ = sender.send(mapped);
    });
    let failed = |reason: String| Error::Failed(format!("reading the counts: {reason}"));
    device
        .poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None })
        .map_err(|error| failed(error.to_string()))?;
    let mapped = receiver.recv().map_err(|error| failed(error.to_string()))?;
    mapped.map_err(|error| failed(error.to_string()))?;
    let view = counts.get_mapped_range(..).map_err(|error| failed(error.to_string()))?;
    Ok(bytemuck::pod_collect_to_vec(&view))
}

/// The application's pipelines.
struct Application {
    device: wgpu::Device,
    module: wgpu::ShaderModule,
}

impl Application {
    fn new(device: &wgpu::Device) -> Self {
        let source = wgpu::ShaderSource::Wgsl(SHADERS.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("application"), source });
        Self { device: device.clone(), module }
    }

    /// A pass of one dispatch.
    fn pass(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        entry_point: &str,
        buffers: &[(u32, &wgpu::Buffer)],
        [x, y]: [u32; 2],
    ) {
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry_point),
            layout: None,
            module: &self.module,
            entry_point: Some(entry_point),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let entries = buffers.iter().map(|&(binding, buffer)| {
            let resource = buffer.as_entire_binding();
            wgpu::BindGroupEntry { binding, resource }
        });
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry_point),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries.collect::<Vec<_>>(),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bind_group, &[]);
        pass.dispatch_workgroups(x, y, 1);
    }
}

/// The same on the CPU: the pattern, the crate's reference, the histogram.
fn on_cpu() -> Result<Vec<u32>> {
    let (size, half) = (SIZE as usize, i64::from(SIZE / 2));
    let image = Array4::from_shape_fn((1, 1, size, size), |(_, _, y, x)| {
        let (y, x) = (y as i64 - half, x as i64 - half);
        ((x * x + y * y) / 64 % 16) as f32
    });
    let spec = ConvSpec { pads: vec![(1, 1); 2], ..ConvSpec::new(2) };
    let (image, weight) = (image.into_dyn(), sobel().into_dyn());
    let gradient: ArrayD<f64> = reference::conv(image.view(), weight.view(), None, &spec)?;
    let mut bins = vec![0; BINS];
    let planes = gradient.as_slice().map(|values| values.split_at(size * size)).unwrap_or_default();
    for (x, y) in planes.0.iter().zip(planes.1) {
        bins[(((x.abs() + y.abs()) / 6.0) as usize).min(BINS - 1)] += 1;
    }
    Ok(bins)
}

fn print_histogram(bins: &[u32]) {
    let most = bins.iter().copied().max().unwrap_or(0).max(1);
    println!("   |gx| + |gy|     pixels");
    for (i, &count) in bins.iter().enumerate() {
        let range =
            if i + 1 == bins.len() { format!("{} or more", i * 6) } else { format!("{} to {}", i * 6, i * 6 + 5) };
        let bar = "█".repeat((f64::from(count) / f64::from(most) * 40.0).ceil() as usize);
        println!("  {range:>12}  {count:>9}  {bar}");
    }
}
