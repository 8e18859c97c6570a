// Elements moved from one place to another: y[y_at + sum of i_k * y_k] = x[x_at + sum of i_k * x_k]
//
// For concatenation, parts of a tensor, pixel shuffle and nearest up-sampling. The part that moves has at most six axes.
// e0..e5: its extents, the last axis of the output first, and with VEC counted in vec4s on axis 0; x0.., y0..: strides in elements an
// index of the axis; x's is 0 where it repeats. With VEC, axis 0 lies as whole vec4s in both. A thread moves one element or vec4.
// x_at, y_at: where the part begins in the bound windows; total: threads.
struct Params {
    first_group: u32,
    e0: u32, e1: u32, e2: u32, e3: u32, e4: u32, e5: u32,
    x0: u32, x1: u32, x2: u32, x3: u32, x4: u32, x5: u32,
    y0: u32, y1: u32, y2: u32, y3: u32, y4: u32, y5: u32,
    total: u32, x_at: u32, y_at: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
//% set element = "vec4<f32>" if VEC else "f32"
@group(0) @binding(1) var<storage, read> x: array<{{ element }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ element }}>;
//% include "common/grid.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    if (index >= params.total) {
        return;
    }
    var rest = index;
    var x_index = params.x_at;
    var y_index = params.y_at;
//% for axis in range(6)
    x_index += rest % params.e{{ axis }} * params.x{{ axis }};
    y_index += rest % params.e{{ axis }} * params.y{{ axis }};
    rest /= params.e{{ axis }};
//% endfor
    y[y_index{{ " / 4u" if VEC }}] = x[x_index{{ " / 4u" if VEC }}];
}
