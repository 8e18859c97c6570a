// An activation by itself: y[i] = act(x[i]), four elements a thread.
//
// x, y: any shape, as vec4s (a tensor's buffer is whole vec4s); vec4s first.. first + count.
struct Params {
    first_group: u32,
    count: u32, x_base: u32, y_base: u32, first: u32,
    activation: u32, slope: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
//% include "common/grid.wgsl"
//% include "common/activation.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    if (index >= params.count) {
        return;
    }
    let i = params.first + index;
    y[i - params.y_base] = activate_any(x[i - params.x_base], params.activation, params.slope);
}
