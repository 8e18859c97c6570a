//! Which kernels are offered for which problems, and which of them leads: plain data, made without an adapter. What the comparisons with
//! the reference cannot see: a kernel that is no longer offered is not compared, and one that no longer leads is only slow.

mod conv;
mod others;

use wgconv::{AdapterClass, Profile};

/// A software adapter with subgroups of eight and 64-bit integers.
fn software() -> Profile {
    Profile { class: AdapterClass::Cpu, subgroup: Some(8), wide_loads: true, ..Profile::baseline() }
}

fn discrete() -> Profile {
    Profile { class: AdapterClass::Discrete, workgroup_bytes: 48 << 10, ..Profile::baseline() }
}

/// Windows of 956 elements: 4096 bytes less an alignment and a vec4.
fn small() -> Profile {
    Profile { max_binding: 4096, ..software() }
}
