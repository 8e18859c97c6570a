// The second step of conv/tiled.wgsl where K is split: adds the parts in their order and applies the epilogue.
//
//   y[n,o,q] = act(sum over s of part[s,n,o,q] + bias[o] + residual[n,o,q])
//
// part [splits,N,O,Q] with `sums` = N*O*Q; y, residual [N,O,Q]. A thread makes one output, in the same order every time.
//% include "conv/tiled_common.wgsl"
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read> part: array<f32>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    if (index >= params.sums) {
        return;
    }
    var sum = 0.0;
    for (var s = 0u; s < params.splits; s++) {
        sum += part[s * params.sums + index];
    }
    let channels = params.og * params.groups;
    let q = index % out_plane();
    let o = index / out_plane() % channels;
    let n = index / out_plane() / channels;
    let g = o / params.og;
    if (!all_finite(vec4<f32>(sum))) {
        sum = exact(image(n, g), g, o % params.og, window_start(q));
    }
    let at = params.y_start + index;
    sum += bias_of(o);
    if (params.has_residual == 1u) {
        sum += residual[at];
    }
    y[at] = activate(vec4<f32>(sum), params.activation, params.slope).x;
}
