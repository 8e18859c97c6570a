// What softmax needs to know of each line: its greatest value and the sum of exp(x - greatest).
//
//   stats[r] = (m, s),  m = max over l of x[r,l],  s = sum over l of exp(x[r,l] - m)
//
// x [O,L,I], a line is one (o, i); stats: lines of this part, o_count x i_count. Positions l0.. l0 + l_count of the axis; where a
// line comes in several parts, all but the first go on from what is there.
// s is NaN for a line whose softmax is: one with a NaN or a plus infinity, or with nothing but minus infinities.
// WG threads share a line, with two barriers; with WG 1 a thread has a line of its own.
struct Params {
    first_group: u32,
    len: u32, inner: u32, o0: u32, o_count: u32,
    i0: u32, i_count: u32, l0: u32, l_count: u32,
    x_base: u32, first: u32, last: u32, nan: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2<f32>>;
//% include "common/grid.wgsl"
//% include "softmax/exp.wgsl"
//% if WG > 1
var<workgroup> greatest: array<f32, {{ WG }}>;
var<workgroup> sums: array<f32, {{ WG }}>;
//% endif

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
    // Lines past the last are read again as the last, and not written.
    let lines = params.o_count * params.i_count;
    let line = min(index, lines - 1u);
    let o = params.o0 + line / params.i_count;
    let at = (o * params.len + params.l0) * params.inner + params.i0 + line % params.i_count - params.x_base;
    // Below every finite value, so that minus infinities alone leave the sum 0.
    var m = -3.4028234e38;
    var old = vec2<f32>(m, 0.0);
    if (params.first == 0u) {
        old = stats[line];
        m = old.x;
    }
    var bad = is_nan(old.y);
    for (var l = lane; l < params.l_count; l += {{ WG }}u) {
        let v = x[at + l * params.inner];
        m = select(m, v, v > m);
        bad = bad || is_nan(v) || bitcast<u32>(v) == 0x7f800000u;
    }
//% if WG > 1
    greatest[local] = m;
    workgroupBarrier();
    for (var k = 0u; k < {{ WG }}u; k++) {
        m = max(m, greatest[k]);
    }
//% endif
    var s = 0.0;
    for (var l = lane; l < params.l_count; l += {{ WG }}u) {
        s += exp_below(x[at + l * params.inner] - m);
    }
//% if WG > 1
    sums[local] = select(s, params.nan, bad);
    workgroupBarrier();
    s = 0.0;
    for (var k = 0u; k < {{ WG }}u; k++) {
        s += sums[k];
        bad = bad || is_nan(sums[k]);
    }
//% endif
    s += old.y * exp_below(old.x - m);
    if (lane == 0u && index < lines) {
        stats[line] = vec2<f32>(m, select(s, params.nan, bad || (params.last == 1u && s == 0.0)));
    }
}
