//! The finite list of shader instances, and tests over all of it: each parses, validates, has the parameter layout that Rust writes, and
//! translates to SPIR-V, MSL and HLSL.

use std::collections::{BTreeSet, HashMap, HashSet};

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use rayon::prelude::*;

use crate::kernel::{for_browsers, render};
use crate::ops::activation::{self, Activation};
use crate::ops::conv::{depthwise, direct, few, grouped, subgroup, tiled, winograd};
use crate::ops::{conv_transpose, deform, elementwise, involution, linear, pool, rearrange, separable, softmax};
use crate::params::Fields;
use crate::plan::{HEAD_BYTES, Instance};
use crate::pool::UNIFORM_SIZES;
use crate::shaders::SHADERS;
use crate::workgroup::poisoned;

/// Values of the constant `ACT`.
fn activations() -> BTreeSet<u32> {
    use Activation::{Gelu, GeluTanh, HardSigmoid, HardSwish, Relu, Sigmoid, Silu, Tanh};
    [Relu, Sigmoid, Tanh, Silu, Gelu, GeluTanh, HardSigmoid, HardSwish].into_iter().map(Activation::constant).collect()
}

/// Whether subgroups of so many lanes load wide: not, or either.
fn wide_of(lanes: u32) -> Vec<bool> {
    if subgroup::SOFTWARE_SUBGROUPS.contains(&lanes) { vec![false, true] } else { vec![false] }
}

fn conv() -> Vec<(Instance, Fields)> {
    use subgroup::Layout;
    let mut list = Vec::new();
    for block in [1, 4] {
        list.push((direct::instance(block), direct::DirectParams::FIELDS));
    }
    for wide in [false, true] {
        list.push((subgroup::blocks_instance(wide), subgroup::BlocksParams::FIELDS));
    }
    for tile in subgroup::TILES {
        list.push((subgroup::pack_instance(tile), subgroup::PackParams::FIELDS));
        for lanes in subgroup::SUBGROUPS {
            for act in activations() {
                for (vec, layout, transposed) in [
                    (false, Layout::Blocks, false),
                    (true, Layout::Blocks, false),
                    (true, Layout::Planar(0), false),
                    (false, Layout::Columns, false),
                    (true, Layout::Columns, false),
                    (false, Layout::Blocks, true),
                    (true, Layout::Blocks, true),
                ] {
                    for wide in wide_of(lanes) {
                        for residual in [false, true] {
                            let flags = (vec, layout, transposed, residual);
                            let instance = subgroup::instance((lanes, wide), tile, act, flags);
                            list.push((instance, subgroup::SubgroupParams::FIELDS));
                        }
                    }
                }
            }
        }
    }
    for tile in tiled::TILES {
        list.push((subgroup::pack_instance(tile.bm), subgroup::PackParams::FIELDS));
        for act in activations() {
            for (vec, border) in [(false, false), (false, true), (true, false), (true, true)] {
                list.push((tiled::instance(tile, act, vec, border), tiled::TiledParams::FIELDS));
            }
        }
    }
    for tile in tiled::TILES {
        for act in activations() {
            for (between, vec) in [(false, false), (false, true), (true, false), (true, true)] {
                list.push((separable::fused::instance(tile, act, between, vec), separable::fused::FusedParams::FIELDS));
            }
        }
    }
    for act in activations() {
        list.push((tiled::sum_instance(act), tiled::TiledParams::FIELDS));
    }
    for kernel in depthwise::KERNELS {
        for stride in depthwise::STRIDES {
            for lanes in subgroup::SOFTWARE_SUBGROUPS.into_iter().chain([0]) {
                for act in activations() {
                    for flags in 0..8 {
                        for wide in wide_of(lanes) {
                            let access = depthwise::Access { load: flags & 1 > 0, store: flags & 2 > 0, lanes, wide };
                            let instance = depthwise::instance(kernel, stride, act, access, flags & 4 > 0);
                            list.push((instance, depthwise::DepthwiseParams::FIELDS));
                        }
                    }
                }
            }
        }
    }
    for kernel in grouped::KERNELS {
        for stride in grouped::STRIDES {
            for lanes in subgroup::SOFTWARE_SUBGROUPS.into_iter().chain([0]) {
                for act in activations() {
                    for flags in 0..8 {
                        for wide in wide_of(lanes) {
                            let access = grouped::Access { load: flags & 1 > 0, store: flags & 2 > 0, lanes, wide };
                            let instance = grouped::instance(kernel, stride, act, access, flags & 4 > 0);
                            list.push((instance, grouped::GroupedParams::FIELDS));
                        }
                    }
                }
            }
        }
    }
    list
}

fn conv_few_and_winograd() -> Vec<(Instance, Fields)> {
    let mut list = Vec::new();
    for lanes in subgroup::SUBGROUPS {
        for width in few::WIDTHS {
            for stride in few::STRIDES {
                for act in activations() {
                    for flags in [(false, false), (false, true), (true, false), (true, true)] {
                        for wide in wide_of(lanes) {
                            let instance = few::instance((lanes, wide), (width, stride), act, flags);
                            list.push((instance, few::FewParams::FIELDS));
                        }
                    }
                }
            }
        }
    }
    for (m, _) in winograd::SIZES {
        for tile in subgroup::TILES {
            list.push((winograd::weights_instance(m, tile), winograd::WeightsParams::FIELDS));
        }
        for (vec, wide) in [(false, false), (false, true), (true, false), (true, true)] {
            list.push((winograd::input_instance(m, vec, wide), winograd::InputParams::FIELDS));
            for act in activations() {
                for residual in [false, true] {
                    let instance = winograd::output_instance(m, act, (vec, wide), residual);
                    list.push((instance, winograd::OutputParams::FIELDS));
                }
            }
        }
    }
    list
}

fn deform_and_involution() -> Vec<(Instance, Fields)> {
    use involution::choose::{ROWS, SUBGROUP_BLOCKS};
    use involution::fused;
    let mut list = Vec::new();
    for block in conv_transpose::direct::BLOCKS {
        list.push((conv_transpose::direct::instance(block), conv_transpose::direct::TransposeParams::FIELDS));
    }
    for mask in [false, true] {
        for block in deform::direct::BLOCKS {
            list.push((deform::direct::instance(block, mask), deform::direct::DirectParams::FIELDS));
        }
        for lanes in subgroup::SUBGROUPS {
            for act in activations() {
                for flags in [(false, false), (false, true), (true, false), (true, true)] {
                    for wide in wide_of(lanes) {
                        for uniform in [0].into_iter().chain(UNIFORM_SIZES.into_iter().filter(|_| wide)) {
                            let instance = deform::few::instance((lanes, wide), uniform, act, mask, flags);
                            list.push((instance, deform::few::FewParams::FIELDS));
                        }
                    }
                }
            }
        }
        for wide in [false, true] {
            list.push((deform::sliced::sample_instance(mask, wide), deform::sliced::SampleParams::FIELDS));
        }
        list.push((deform::sliced::flat_instance(mask), deform::sliced::FlatParams::FIELDS));
        for tile in tiled::TILES {
            for (act, vec) in activations().into_iter().flat_map(|act| [(act, false), (act, true)]) {
                list.push((deform::fused::instance(tile, act, vec, mask), deform::fused::FusedParams::FIELDS));
            }
        }
    }
    for block in involution::choose::BLOCKS {
        list.push((involution::choose::direct_instance(block), involution::parts::InvolutionParams::FIELDS));
    }
    for width in involution::choose::WIDTHS {
        for (stride, block) in
            involution::choose::STRIDES.into_iter().flat_map(|stride| fused::BLOCKS.map(|block| (stride, block)))
        {
            for act in activations() {
                for flags in [(false, false), (false, true), (true, false), (true, true)] {
                    let instance = fused::instance((width, stride), block, act, flags);
                    list.push((instance, fused::FusedParams::FIELDS));
                }
            }
        }
        for lanes in subgroup::SUBGROUPS {
            for tile in SUBGROUP_BLOCKS.into_iter().flat_map(|block| ROWS.map(|rows| (block, rows))) {
                for act in activations() {
                    for flags in involution::choose::BY.into_iter().flat_map(|by| [(by, false), (by, true)]) {
                        for wide in wide_of(lanes).into_iter().filter(|wide| flags.0 > 1 || !wide) {
                            let instance =
                                involution::choose::subgroup_instance(((lanes, wide), width), tile, act, flags);
                            list.push((instance, involution::parts::InvolutionParams::FIELDS));
                        }
                    }
                }
            }
        }
        for stride in involution::choose::STRIDES {
            for block in involution::choose::BLOCKS {
                for rows in ROWS {
                    for act in activations() {
                        for flags in 0..8 {
                            let flags = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
                            let instance =
                                involution::choose::rows_instance((width, stride), (block, rows), act, flags);
                            list.push((instance, involution::parts::InvolutionParams::FIELDS));
                        }
                    }
                }
            }
        }
    }
    list
}

fn others() -> Vec<(Instance, Fields)> {
    let mut list = vec![
        (activation::instance(), activation::ActivateParams::FIELDS),
        (softmax::apply_instance(), softmax::ApplyParams::FIELDS),
    ];
    for flag in [false, true] {
        list.push((rearrange::instance(flag), rearrange::CopyParams::FIELDS));
        for tile in pool::window::TILES {
            list.push((pool::window::instance(flag, tile), pool::window::WindowParams::FIELDS));
        }
        for vec in [false, true] {
            list.push((elementwise::instance(flag, vec), elementwise::BinaryParams::FIELDS));
        }
        for workgroup in linear::WORKGROUPS {
            for rows in linear::ROWS {
                list.push((linear::instance(workgroup, rows, flag), linear::LinearParams::FIELDS));
            }
        }
    }
    for workgroup in pool::global::WORKGROUPS {
        list.push((pool::global::instance(workgroup), pool::global::GlobalParams::FIELDS));
    }
    for workgroup in softmax::WORKGROUPS {
        list.push((softmax::stats_instance(workgroup), softmax::StatsParams::FIELDS));
    }
    list
}

fn all() -> Vec<(Instance, Fields)> {
    [conv(), conv_few_and_winograd(), deform_and_involution(), others()].concat()
}

/// Whether it has 64-bit integers, which browsers have not.
fn wide(instance: &Instance) -> bool {
    instance.constants().any(|constant| constant == ("WIDE", 1))
}

fn validate(source: &str, wide: bool) -> Result<(naga::Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
    // Subgroup operations, and 64-bit integers where they are wanted, are all that a shader may use beyond WebGPU's baseline.
    let integers = if wide { Capabilities::SHADER_INT64 } else { Capabilities::empty() };
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SUBGROUP | integers);
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info = validator.validate(&module).map_err(|error| error.emit_to_string(source))?;
    Ok((module, info))
}

/// Offsets of the members of the struct behind binding 0.
fn members(module: &naga::Module) -> Vec<(String, usize)> {
    let uniform = module.global_variables.iter().find(|(_, v)| v.binding.is_some_and(|b| b.binding == 0));
    let naga::TypeInner::Struct { members, .. } = &module.types[uniform.expect("binding 0").1.ty].inner else {
        panic!("binding 0 is no struct");
    };
    members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset as usize)).collect()
}

fn translate(module: &naga::Module, info: &ModuleInfo) -> Result<(), String> {
    let options = spv::Options { lang_version: (1, 3), ..Default::default() };
    spv::write_vec(module, info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
    msl::write_string(module, info, &options, &msl::PipelineOptions::default()).map_err(|e| format!("MSL: {e}"))?;
    let options =
        hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, fake_missing_bindings: true, ..Default::default() };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| format!("HLSL: {e}"))?;
    Ok(())
}

#[test]
fn every_instance_is_valid_and_translates() {
    let activation = |instance: &Instance| instance.constants().find(|(name, _)| *name == "ACT");
    let first_of_each: HashMap<_, _> =
        all().into_iter().rev().map(|(instance, _)| ((instance.shader, activation(&instance)), instance)).collect();
    let translate_too: HashSet<Instance> = first_of_each.into_values().collect();
    let failures: Vec<String> = all()
        .into_par_iter()
        .filter_map(|(instance, fields)| {
            let check = || -> Result<(), String> {
                let source = render(&instance).map_err(|error| error.to_string())?;
                let (module, info) = validate(&source, wide(&instance))?;
                // As a guarded Gpu compiles it.
                let filled = poisoned(&source);
                if filled.matches("(poison);").count() != source.matches("var<workgroup>").count() {
                    return Err("workgroup memory that is not filled".to_string());
                }
                if filled != source {
                    validate(&filled, wide(&instance))?;
                }
                let own = fields.iter().map(|(name, at)| (name.to_string(), HEAD_BYTES + at));
                let expected: Vec<_> = std::iter::once(("first_group".to_string(), 0)).chain(own).collect();
                if members(&module) != expected {
                    return Err(format!("parameters: shader {:?}, Rust {expected:?}", members(&module)));
                }
                // The activation is one function of the same signature: with each of the others an instance is translated once.
                if instance.constants().all(|(name, value)| name != "ACT" || value == 0)
                    || translate_too.contains(&instance)
                {
                    translate(&module, &info)?;
                }
                Ok(())
            };
            check().err().map(|error| format!("{instance}: {error}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} instances fail, the first: {}", failures.len(), failures[0]);
}

/// For `cargo xtask browser`: a list of names and sources that a page can load.
#[test]
#[ignore = "not a test: writes shaders.js into the folder named by WGCONV_SHADERS_OUT"]
fn write_for_a_browser() {
    let folder = std::env::var_os("WGCONV_SHADERS_OUT").expect("WGCONV_SHADERS_OUT");
    let list: Vec<(String, String)> = all()
        .iter()
        .filter(|(instance, _)| !wide(instance))
        .map(|(instance, _)| (instance.to_string(), for_browsers(render(instance).expect("a template that renders"))))
        .collect();
    let text = format!("const shaders = {};", serde_json::to_string(&list).expect("JSON"));
    std::fs::write(std::path::Path::new(&folder).join("shaders.js"), text).expect("a folder to write to");
}

#[test]
fn every_shader_file_is_registered_and_instantiated() {
    fn walk(folder: &std::path::Path, root: &std::path::Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("shaders/").map(|entry| entry.expect("entry").path()) {
            if entry.is_dir() {
                walk(&entry, root, found);
            } else {
                let path = entry.strip_prefix(root).expect("under shaders/");
                found.insert(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut found = BTreeSet::new();
    walk(&root, &root, &mut found);
    let registered: BTreeSet<String> = SHADERS.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(found, registered, "files under shaders/ and the list in src/shaders.rs");
    let used: BTreeSet<String> = all().into_iter().map(|(instance, _)| instance.shader.to_string()).collect();
    let kernels: BTreeSet<String> =
        SHADERS.iter().filter(|(_, source)| source.contains("fn main(")).map(|(path, _)| path.to_string()).collect();
    assert_eq!(used, kernels, "shaders with an entry point and the list of instances");
}
