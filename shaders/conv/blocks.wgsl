// Copies the input into blocks of four channels, one vec4 a position, so that one load brings four channels of any position.
//
//   out[n, g, b, p] = (x[n, g*CG + 4b + 0..3, p])     channels past the group's last are 0
//
// x [N,C,D,H,W]; out [N,G,B,PD,PH,PW] of vec4, B = ceil(CG/4), and one more vec4 of zeros behind the last.
// Where the border is not zeros the padding is written out: PD = D + both paddings, and so on; else PD = D.
struct Params {
    first_group: u32,
    cg: u32, groups: u32, blocks: u32, total: u32,
    in_d: i32, in_h: i32, in_w: i32, border: u32,
    out_d: i32, out_h: i32, out_w: i32, x_base: u32,
    p_d: i32, p_h: i32, p_w: i32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<Quad>;
//% include "common/grid.wgsl"
//% include "common/border.wgsl"
//% include "common/wide.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    if (index > params.total) {
        return;
    }
    let positions = params.out_d * params.out_h * params.out_w;
    let plane = u32(params.in_d * params.in_h * params.in_w);
    let row = index / u32(positions);
    let p = i32(index % u32(positions));
    let block = row % params.blocks;
    let i_w = border_index(p % params.out_w - params.p_w, params.in_w, params.border);
    let i_h = border_index(p / params.out_w % params.out_h - params.p_h, params.in_h, params.border);
    let i_d = border_index(p / params.out_w / params.out_h - params.p_d, params.in_d, params.border);
    let at = u32(max((i_d * params.in_h + i_h) * params.in_w + i_w, 0));
    let first = (row / params.blocks * params.cg + block * 4u) * plane + at - params.x_base;
    // The tail of a group, and the vec4 of zeros, load what is there and select 0.
    let valid = select(min(params.cg - block * 4u, 4u), 0u, index == params.total);
    var v = vec4<f32>();
//% for j in range(4)
    if ({{ j }}u < valid) {
        v[{{ j }}] = x[first + {{ j }}u * plane];
    }
//% endfor
    out[index] = pack(v);
}
