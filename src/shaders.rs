//! Every file under `shaders/`, by its path there. A test fails where one is missing.

macro_rules! shaders {
    ($($path:literal),* $(,)?) => {
        /// Path under `shaders/` and template source.
        pub(crate) const SHADERS: &[(&str, &str)] = &[$(($path, include_str!(concat!("../shaders/", $path)))),*];
    };
}

shaders![
    "common/activate.wgsl",
    "common/activation.wgsl",
    "common/border.wgsl",
    "common/element.wgsl",
    "common/finite.wgsl",
    "common/grid.wgsl",
    "common/store_quads.wgsl",
    "common/wide.wgsl",
    "conv/blocks.wgsl",
    "conv/depthwise.wgsl",
    "conv/direct.wgsl",
    "conv/few.wgsl",
    "conv/grouped.wgsl",
    "conv/pack.wgsl",
    "conv/separable.wgsl",
    "conv/subgroup.wgsl",
    "conv/tiled.wgsl",
    "conv/tiled_common.wgsl",
    "conv/tiled_memory.wgsl",
    "conv/tiled_product.wgsl",
    "conv/tiled_store.wgsl",
    "conv/tiled_sum.wgsl",
    "conv/tiled_sums.wgsl",
    "conv_transpose/direct.wgsl",
    "deform/corners.wgsl",
    "deform/direct.wgsl",
    "deform/few.wgsl",
    "deform/fused.wgsl",
    "deform/sample.wgsl",
    "deform/sample_flat.wgsl",
    "elementwise/activate.wgsl",
    "elementwise/binary.wgsl",
    "elementwise/copy.wgsl",
    "involution/direct.wgsl",
    "involution/fused.wgsl",
    "involution/params.wgsl",
    "involution/rows.wgsl",
    "involution/subgroup.wgsl",
    "linear.wgsl",
    "pool/global.wgsl",
    "pool/window.wgsl",
    "softmax/apply.wgsl",
    "softmax/exp.wgsl",
    "softmax/stats.wgsl",
    "winograd/input.wgsl",
    "winograd/matrices.wgsl",
    "winograd/output.wgsl",
    "winograd/weights.wgsl",
];
