// Samples a slice of output positions into columns where blocks of four channels do not pay or do not lie in one offset group:
// four neighbours of a weight group's list of (channel, tap) make a block.
//
//   columns[t, g, b, j] = (m[n,d,k,p] * x[n, g*CG + c, p*stride - pad + k*dilation + offset[n,d,k,p]], (c,k) = 4b + 0..3)
//
// (c,k) is the number c*K + k, d = (g*CG + c) / CD the offset group; past the list's end stands 0. Columns stand in tiles of `width`
// positions, the GEMM's: position j of tile t is n*count + i = t*width + j, p = first + i.
// x [N,C,H,W], offset [N,D,K,2,P], mask [N,D,K,P], in windows that start at the bases; columns [T,G,B,J] of vec4.
// A thread makes one vec4.
struct Params {
    first_group: u32,
    in_h: i32, in_w: i32, out_w: i32, positions: u32,
    k_w: u32, taps: u32, s_h: i32, s_w: i32,
    d_h: i32, d_w: i32, p_h: i32, p_w: i32,
    c_in: u32, cg: u32, cd: u32, offset_groups: u32,
    groups: u32, blocks: u32, first: u32, count: u32,
    total: u32, x_base: u32, offset_base: u32, mask_base: u32,
    width: u32, columns: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> offset: array<f32>;
//% if MASK
@group(0) @binding(3) var<storage, read> mask: array<f32>;
//% endif
@group(0) @binding(4) var<storage, read_write> columns: array<vec4<f32>>;
//% include "common/grid.wgsl"
//% include "deform/corners.wgsl"

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
    let j = index % params.width;
    var rest = index / params.width;
    let b = rest % params.blocks;
    rest /= params.blocks;
    let g = rest % params.groups;
    let flat = rest / params.groups * params.width + j;
    if (flat >= params.columns) {
        return;
    }
    let n = flat / params.count;
    let q = params.first + flat % params.count;
    let at_h = i32(q) / params.out_w * params.s_h - params.p_h;
    let at_w = i32(q) % params.out_w * params.s_w - params.p_w;
    let plane = u32(params.in_h * params.in_w);
    var c = b * 4u / params.taps;
    var k = b * 4u % params.taps;
    var kh = k / params.k_w;
    var kw = k % params.k_w;
    var v = vec4<f32>();
//% for i in range(4)
    {
        let valid = c < params.cg;
        let channel = g * params.cg + min(c, params.cg - 1u);
        let field = (n * params.offset_groups + channel / params.cd) * params.taps + k;
        let offset_at = field * 2u * params.positions + q - params.offset_base;
        // The coordinate is one f32 addition, by definition.
        let point_y = f32(at_h + i32(kh) * params.d_h) + offset[offset_at];
        let point_x = f32(at_w + i32(kw) * params.d_w) + offset[offset_at + params.positions];
        let near = corners(point_y, point_x, params.in_h, params.in_w);
        let x_at = vec4<u32>((n * params.c_in + channel) * plane - params.x_base) + near.at;
        let loaded = vec4<f32>(x[x_at.x], x[x_at.y], x[x_at.z], x[x_at.w]);
        let part = select(vec4<f32>(), loaded, near.inside) * near.weight;
        let value = ((part.x + part.y) + (part.z + part.w)){% if MASK %} * mask[field * params.positions + q - params.mask_base]{% endif %};
        v[{{ i }}] = select(0.0, value, valid);
        // The next tap, and after the last one the next channel.
        k++;
        kw++;
        let row_done = kw == params.k_w;
        kw = select(kw, 0u, row_done);
        kh = select(kh, kh + 1u, row_done);
        let done = k == params.taps;
        k = select(k, 0u, done);
        kh = select(kh, 0u, done);
        c = select(c, c + 1u, done);
    }
//% endfor
    columns[index] = v;
}
