//! Which files are mutated, and which tests could notice.

/// What a file is about, as the score is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Shapes,
    Choice,
    Reference,
}

impl Group {
    pub const ALL: [Self; 3] = [Self::Shapes, Self::Choice, Self::Reference];

    pub fn name(self) -> &'static str {
        match self {
            Self::Shapes => "shape rules",
            Self::Choice => "choice of plans",
            Self::Reference => "reference",
        }
    }
}

/// A file and its tests, by parts of their names.
pub struct Target {
    pub file: &'static str,
    pub group: Group,
    /// Only inside of these functions. The others of such a file write a kernel's parameters: what is wrong there, the comparison of every
    /// kernel with the reference shows.
    pub functions: Option<&'static [&'static str]>,
    /// Of the library.
    pub lib: &'static [&'static str],
    /// Integration tests.
    pub it: &'static [&'static str],
}

const fn shapes(file: &'static str, it: &'static [&'static str]) -> Target {
    Target { file, group: Group::Shapes, functions: None, lib: &["ops::", "analysis::"], it }
}

const fn choice(file: &'static str, it: &'static [&'static str]) -> Target {
    Target { file, group: Group::Choice, functions: None, lib: &["ops::", "plan", "profile"], it }
}

/// Of a file of plans what decides which of them is taken.
const fn part(file: &'static str, functions: &'static [&'static str], it: &'static [&'static str]) -> Target {
    Target { file, group: Group::Choice, functions: Some(functions), lib: &["ops::", "plan", "profile"], it }
}

const fn reference(file: &'static str, it: &'static [&'static str]) -> Target {
    Target { file, group: Group::Reference, functions: None, lib: &["reference::"], it }
}

const CONV: &[&str] = &["errors::", "plans::", "conv::", "golden::"];
const TRANSPOSED: &[&str] = &["errors::", "plans::", "conv_transpose::", "golden::"];
const DEFORM: &[&str] = &["errors::", "plans::", "deform::", "golden::"];
const INVOLUTION: &[&str] = &["errors::", "plans::", "involution::", "golden::"];
const SEPARABLE: &[&str] = &["errors::", "plans::", "separable::"];
const POOL: &[&str] = &["errors::", "pool::", "golden::"];
const ALL: &[&str] = &["errors::", "plans::", "conv::", "conv_transpose::", "deform::", "golden::"];

pub const TARGETS: &[Target] = &[
    shapes("src/ops/options.rs", ALL),
    shapes("src/ops/conv/problem.rs", ALL),
    shapes("src/ops/conv_transpose/problem.rs", TRANSPOSED),
    shapes("src/ops/deform/problem.rs", DEFORM),
    shapes("src/ops/involution/problem.rs", INVOLUTION),
    shapes("src/ops/pool/problem.rs", POOL),
    shapes("src/ops/separable/problem.rs", SEPARABLE),
    choice("src/ops/window.rs", ALL),
    choice("src/plan.rs", ALL),
    choice("src/profile.rs", ALL),
    choice("src/ops/conv/choose.rs", CONV),
    choice("src/ops/conv_transpose/choose.rs", TRANSPOSED),
    choice("src/ops/deform/choose.rs", DEFORM),
    choice("src/ops/involution/choose.rs", INVOLUTION),
    choice("src/ops/separable/choose.rs", SEPARABLE),
    part("src/ops/conv/depthwise.rs", &["fits", "stride_and_spread"], CONV),
    part("src/ops/conv/few.rs", &["fits", "pays", "packed_bytes"], CONV),
    part("src/ops/conv/grouped.rs", &["fits"], CONV),
    part(
        "src/ops/conv/subgroup.rs",
        &["has_subgroups", "fits", "planar", "tile", "cg", "og", "blocks", "blocked_bytes", "packed_bytes"],
        CONV,
    ),
    part(
        "src/ops/conv/tiled.rs",
        &[
            "leads",
            "best",
            "split",
            "workgroups",
            "most_splits",
            "making",
            "cost",
            "step_cost",
            "capacity",
            "threads",
            "bytes",
            "side",
            "steps_of_k",
            "packed_bytes",
        ],
        CONV,
    ),
    part(
        "src/ops/conv/winograd.rs",
        &["fits", "pays", "positions", "grid", "row_elements", "gemm"],
        &["errors::", "plans::", "winograd::"],
    ),
    part("src/ops/deform/blocks.rs", &["pay", "image"], DEFORM),
    part("src/ops/deform/sliced.rs", &["new", "blocks", "copied_image", "column", "tile"], DEFORM),
    part("src/ops/deform/fused.rs", &["new", "leads"], DEFORM),
    part("src/ops/deform/few.rs", &["fits", "leads", "largest"], DEFORM),
    part("src/ops/involution/parts.rs", &["whole_planes", "whole_taps", "group_elements"], INVOLUTION),
    part("src/ops/involution/fused.rs", &["fits", "leads", "largest"], INVOLUTION),
    part("src/ops/separable/fused.rs", &["new", "leads", "tiles"], SEPARABLE),
    reference("src/reference/activation.rs", &["golden::the_reference", "activation::"]),
    reference("src/reference/batch_norm.rs", &["golden::the_reference", "batch_norm::"]),
    reference("src/reference/conv.rs", &["golden::the_reference", "golden::single", "conv::"]),
    reference("src/reference/conv_transpose.rs", &["golden::the_reference", "golden::single", "conv_transpose::"]),
    reference("src/reference/deform_conv.rs", &["golden::the_reference", "golden::single", "deform::"]),
    reference("src/reference/elementwise.rs", &["golden::the_reference", "elementwise::"]),
    reference("src/reference/involution.rs", &["golden::the_reference", "golden::single", "involution::"]),
    reference("src/reference/linear.rs", &["golden::the_reference", "linear::"]),
    reference("src/reference/pool.rs", &["golden::the_reference", "pool::"]),
    reference("src/reference/rearrange.rs", &["golden::the_reference", "rearrange::"]),
    reference(
        "src/reference/shape.rs",
        &["golden::the_reference", "golden::single", "conv::", "conv_transpose::", "involution::"],
    ),
    reference("src/reference/softmax.rs", &["golden::the_reference", "softmax::"]),
];
