// Softmax from each line's greatest value and sum (softmax/stats.wgsl), a thread four elements of a line:
//
//   y[r,l] = exp(x[r,l] - m[r]) / s[r]     NaN where s is
//
// x, y [O,L,I], a line is one (o, i); positions l0.. of the axis, lines of the part i0.. and o0...
struct Params {
    first_group: u32,
    len: u32, inner: u32, o0: u32, o_count: u32,
    i0: u32, i_count: u32, l0: u32, l_count: u32,
    x_base: u32, y_base: u32, tiles: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
//% include "common/grid.wgsl"
//% include "softmax/exp.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    if (index >= params.o_count * params.tiles * params.i_count) {
        return;
    }
    let row = index / params.i_count;
    let i = index - row * params.i_count;
    let o = row / params.tiles;
    let l = (row - o * params.tiles) * 4u;
    let at = ((params.o0 + o) * params.len + params.l0 + l) * params.inner + params.i0 + i;
    let line = stats[o * params.i_count + i];
    let last = min(params.l_count - l, 4u);
    for (var j = 0u; j < last; j++) {
        let v = exp_below(x[at + j * params.inner - params.x_base] - line.x) / line.y;
        y[at + j * params.inner - params.y_base] = select(v, line.y, is_nan(line.y));
    }
}
