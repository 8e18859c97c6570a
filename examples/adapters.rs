//! Lists the adapters of the machine with the features and limits that matter to this crate.

#[path = "common/mod.rs"]
mod common;

use std::process::ExitCode;

use clap::Parser;
use wgconv::{Gpu, Profile, wgpu};

use common::Result;

/// Lists the adapters of this machine with the features and limits that matter here.
#[derive(Parser)]
struct Options {
    /// Only those whose name contains this (else WGCONV_ADAPTER, else all).
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

fn main() -> ExitCode {
    common::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let env = std::env::var("WGCONV_ADAPTER").ok().filter(|name| !name.is_empty());
    let wanted = options.adapter.clone().or(env);
    let Some(default) = common::open_gpu(wanted.as_deref())? else { return Ok(()) };
    let default = default.adapter_info();
    let mut adapters = pollster::block_on(Gpu::builder().list());
    if let Some(part) = &wanted {
        adapters.retain(|adapter| adapter.get_info().name.to_lowercase().contains(&part.to_lowercase()));
    }
    let mut marked = false;
    for adapter in &adapters {
        // Where several are alike, the first is the one that opens.
        let opens = !marked && adapter.get_info() == default;
        marked |= opens;
        print_adapter(adapter, opens);
    }
    println!("\n* opens unless another is named by --adapter or WGCONV_ADAPTER");
    Ok(())
}

fn print_adapter(adapter: &wgpu::Adapter, opens: bool) {
    let (info, features, limits) = (adapter.get_info(), adapter.features(), adapter.limits());
    let row = |name: &str, value: String| println!("    {name:<22} {value}");
    println!("\n{} {}", if opens { "*" } else { " " }, info.name);
    row("kind", kind(info.device_type).to_string());
    row("backend", format!("{:?}", info.backend));
    row("driver", [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_string());
    let subgroup = match (info.subgroup_min_size, info.subgroup_max_size) {
        (least, greatest) if least == greatest => format!("{least} lanes"),
        (least, greatest) => format!("{least} to {greatest} lanes"),
    };
    let has = |feature, text: &str| if features.contains(feature) { text.to_string() } else { "no".into() };
    row("subgroup operations", has(wgpu::Features::SUBGROUP, &subgroup));
    row("timestamps", has(wgpu::Features::TIMESTAMP_QUERY, "yes"));
    row("16-bit floats", has(wgpu::Features::SHADER_F16, "yes"));
    row("largest buffer", bytes(limits.max_buffer_size));
    row("largest binding", bytes(limits.max_storage_buffer_binding_size));
    row("storage bindings", limits.max_storage_buffers_per_shader_stage.to_string());
    row("binding alignment", bytes(u64::from(limits.min_storage_buffer_offset_alignment)));
    row("workgroup", format!("{} invocations", limits.max_compute_invocations_per_workgroup));
    row("workgroup memory", bytes(u64::from(limits.max_compute_workgroup_storage_size)));
    row("dispatch", format!("{} workgroups an axis", limits.max_compute_workgroups_per_dimension));
    row("kernels", open(adapter).map_or_else(|reason| format!("does not open: {reason}"), |profile| kernels(&profile)));
}

fn kind(kind: wgpu::DeviceType) -> &'static str {
    match kind {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software on the CPU",
        wgpu::DeviceType::Other => "not said",
    }
}

/// What the crate makes of the adapter.
fn open(adapter: &wgpu::Adapter) -> Result<Profile> {
    let name = adapter.get_info().name;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let opened = pollster::block_on(adapter.request_device(&descriptor));
    let (device, queue) =
        opened.map_err(|error| wgconv::Error::NoDevice { adapter: name, reason: error.to_string() })?;
    Ok(Gpu::from_wgpu(device, queue)?.profile().clone())
}

fn kernels(profile: &Profile) -> String {
    let subgroup = match profile.subgroup {
        Some(lanes) => format!("with subgroups of {lanes}"),
        None => "without subgroups".into(),
    };
    format!("chosen for class {:?}, {subgroup}", profile.class)
}

fn bytes(count: u64) -> String {
    match count {
        c if c >= 1 << 30 => format!("{:.2} GiB", c as f64 / (1u64 << 30) as f64),
        c if c >= 1 << 20 => format!("{:.1} MiB", c as f64 / (1u64 << 20) as f64),
        c if c >= 1 << 10 => format!("{:.1} KiB", c as f64 / 1024.0),
        c => format!("{c} B"),
    }
}
