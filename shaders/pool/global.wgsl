// Mean over a whole plane: y[p] = act(sum over q of x[p,q] / Q)
//
// x [P,Q], y [P]. WG threads share a plane: each adds up every WG-th element, four sums at a time, and the first adds up theirs in
// order, so that the result does not depend on timing. With WG 1 a thread has a plane of its own and there is no barrier.
// Where a plane is too large for a binding, elements start.. of it come in several dispatches and y holds their sum in between.
struct Params {
    first_group: u32,
    size: u32, start: u32, count: u32, planes: u32,
    plane0: u32, x_base: u32, y_base: u32, activation: u32,
    first: u32, last: u32, slope: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
//% include "common/grid.wgsl"
//% include "common/activation.wgsl"
//% if WG > 1
var<workgroup> partial: array<f32, {{ WG }}>;
//% endif

fn finish(plane: u32, part: f32) {
    var sum = part;
    if (params.first == 0u) {
        sum += y[plane - params.y_base];
    }
    if (params.last == 1u) {
        sum = activate_any(vec4<f32>(sum / f32(params.size)), params.activation, params.slope).x;
    }
    y[plane - params.y_base] = sum;
}

@compute @workgroup_size({{ WG if WG > 1 else 64 }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
//% if WG > 1
    let index = group_index(group, groups);
    let lane = local;
//% else
    let index = group_index(group, groups) * 64u + local;
    let lane = 0u;
//% endif
    // Planes past the last are read again as the last, and not written.
    let plane = params.plane0 + min(index, params.planes - 1u);
    let at = plane * params.size + params.start - params.x_base;
    var sums = vec4<f32>();
    var i = lane;
    for (; i + {{ 3 * WG }}u < params.count; i += {{ 4 * WG }}u) {
        sums += vec4<f32>(x[at + i], x[at + i + {{ WG }}u], x[at + i + {{ 2 * WG }}u], x[at + i + {{ 3 * WG }}u]);
    }
    for (; i < params.count; i += {{ WG }}u) {
        sums.x += x[at + i];
    }
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
//% if WG > 1
    partial[local] = sum;
    workgroupBarrier();
    if (local == 0u && index < params.planes) {
        var total = 0.0;
        for (var k = 0u; k < {{ WG }}u; k++) {
            total += partial[k];
        }
        finish(plane, total);
    }
//% else
    if (index < params.planes) {
        finish(plane, sum);
    }
//% endif
}
