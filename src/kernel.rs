//! From a shader and its constants to a pipeline, compiled once and kept; bind groups, kept as well.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use minijinja::{Environment, syntax::SyntaxConfig};

use crate::error::{Error, Result};
use crate::gpu::Inner;
use crate::pipeline_cache::PipelineCache;
use crate::plan::{Access, Binding, Instance, PARAMS_BYTES};
use crate::shaders::SHADERS;
use crate::workgroup::poisoned;

/// Bind groups kept at most; beyond, all are dropped and made anew as they are needed.
const KEEP_BIND_GROUPS: usize = 8192;

/// A compiled pipeline and the layout of its one bind group.
pub(crate) struct Kernel {
    pub instance: Instance,
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    /// The accesses of all bindings but the parameters.
    signature: u32,
}

/// A binding with everything resolved.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub id: u32,
    pub offset: u64,
    pub size: u64,
}

/// Signature, then buffer, offset / 4 and size / 4 of each binding.
type BindKey = (u32, [(u32, u32, u32); 8]);

/// Where a kernel is once it is compiled: who waits for one does not hold up those who want another.
type Place = Arc<Mutex<Option<Arc<Kernel>>>>;

#[derive(Default)]
pub(crate) struct Kernels {
    kernels: Mutex<HashMap<(Instance, u32), Place>>,
    /// Compiled pipelines of earlier processes.
    pub cache: PipelineCache,
    layouts: Mutex<HashMap<u32, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>>,
    bind_groups: Mutex<HashMap<BindKey, wgpu::BindGroup>>,
    pub pipelines_created: AtomicU64,
    pub bind_groups_created: AtomicU64,
}

/// The WGSL of an instance.
pub(crate) fn render(instance: &Instance) -> Result<String> {
    static TEMPLATES: OnceLock<Environment<'static>> = OnceLock::new();
    let templates = TEMPLATES.get_or_init(|| {
        let mut env = Environment::new();
        // WGSL keeps its own braces: `{{ }}` prints, and a line that starts with `//%` is a statement.
        if let Ok(syntax) = SyntaxConfig::builder().line_statement_prefix("//%").build() {
            env.set_syntax(syntax);
        }
        env.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        for (name, source) in SHADERS {
            // A template that does not parse is found missing by the test of all instances.
            let _ = env.add_template(name, source);
        }
        env
    });
    let constants: BTreeMap<&str, u32> = instance.constants().collect();
    let rendered = templates.get_template(instance.shader).and_then(|template| template.render(constants));
    let source = rendered.map_err(|error| Error::Device { reason: format!("{instance}: {error:#}") })?;
    Ok(if cfg!(target_arch = "wasm32") { for_browsers(source) } else { source })
}

/// Browsers want subgroups enabled by a directive that naga rejects.
pub(crate) fn for_browsers(source: String) -> String {
    if source.contains("subgroup") { format!("enable subgroups;\n{source}") } else { source }
}

/// Two bits for the access of each binding, the first lowest, and a bit above the last.
fn signature(bindings: &[Binding]) -> u32 {
    bindings.iter().rev().fold(1, |bits, binding| {
        bits << 2
            | match binding.access {
                Access::Read => 0,
                Access::Write => 1,
                Access::Uniform => 2,
            }
    })
}

fn binding_types(signature: u32) -> impl Iterator<Item = wgpu::BufferBindingType> {
    (0..signature.ilog2() / 2).map(move |i| match signature >> (2 * i) & 3 {
        2 => wgpu::BufferBindingType::Uniform,
        access => wgpu::BufferBindingType::Storage { read_only: access == 0 },
    })
}

impl Kernels {
    pub fn new(cache: PipelineCache) -> Self {
        Self { cache, ..Self::default() }
    }

    /// The kernel of an instance whose bindings are read and written as `bindings` say.
    pub fn get(&self, gpu: &Inner, instance: &Instance, bindings: &[Binding]) -> Result<Arc<Kernel>> {
        let signature = signature(bindings);
        let place = {
            let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
            kernels.entry((*instance, signature)).or_default().clone()
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*place {
            return Ok(kernel.clone());
        }
        let kernel = Arc::new(self.compile(gpu, instance, signature)?);
        *place = Some(kernel.clone());
        Ok(kernel)
    }

    fn compile(&self, gpu: &Inner, instance: &Instance, signature: u32) -> Result<Kernel> {
        let source = render(instance)?;
        let source = if gpu.guards.is_some() { poisoned(&source) } else { source };
        let (layout, pipeline_layout) = self.layout(gpu, signature)?;
        let label = instance.to_string();
        let pipeline = gpu.scoped(|device| {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&label),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // A shader that reads workgroup memory has written it before.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.cache.raw(),
            })
        })?;
        self.pipelines_created.fetch_add(1, Ordering::Relaxed);
        Ok(Kernel { instance: *instance, pipeline, layout, signature })
    }

    fn layout(&self, gpu: &Inner, signature: u32) -> Result<(wgpu::BindGroupLayout, wgpu::PipelineLayout)> {
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = layouts.get(&signature) {
            return Ok(found.clone());
        }
        let entry = |binding: u32, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: binding == 0, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
        entries.extend((1..).zip(binding_types(signature)).map(|(binding, ty)| entry(binding, ty)));
        let made = gpu.scoped(|device| {
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("wgconv"),
                entries: &entries,
            });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some("wgconv"),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            (layout, pipeline_layout)
        })?;
        layouts.insert(signature, made.clone());
        Ok(made)
    }

    /// A bind group over the shared parameter buffer, from the cache where one is there.
    pub fn bind(
        &self,
        gpu: &Inner,
        kernel: &Kernel,
        params: &wgpu::Buffer,
        bound: &[Bound<'_>],
    ) -> Result<wgpu::BindGroup> {
        let mut entries = [(0, 0, 0); 8];
        for (entry, b) in entries.iter_mut().zip(bound) {
            *entry = (b.id, (b.offset / 4) as u32, (b.size / 4) as u32);
        }
        let key = (kernel.signature, entries);
        let mut cache = self.bind_groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = cache.get(&key) {
            return Ok(group.clone());
        }
        if cache.len() >= KEEP_BIND_GROUPS {
            cache.clear();
        }
        let group = Self::create_bind_group(gpu, kernel, params, bound)?;
        self.bind_groups_created.fetch_add(1, Ordering::Relaxed);
        cache.insert(key, group.clone());
        Ok(group)
    }

    /// A bind group that is not kept.
    pub fn create_bind_group(
        gpu: &Inner,
        kernel: &Kernel,
        params: &wgpu::Buffer,
        bound: &[Bound<'_>],
    ) -> Result<wgpu::BindGroup> {
        let resource = |buffer, offset, size| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(size) })
        };
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: resource(params, 0, PARAMS_BYTES as u64) }];
        entries.extend(
            bound
                .iter()
                .zip(1..)
                .map(|(b, binding)| wgpu::BindGroupEntry { binding, resource: resource(b.buffer, b.offset, b.size) }),
        );
        gpu.scoped(|device| {
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.instance.shader),
                layout: &kernel.layout,
                entries: &entries,
            })
        })
    }

    /// Drops the bind groups of a buffer that will not come back: they would keep its memory.
    pub fn forget(&self, buffer: u32) {
        let mut cache = self.bind_groups.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|(_, entries), _| entries.iter().all(|entry| entry.0 != buffer));
    }
}
