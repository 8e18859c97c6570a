// Samples a slice of output positions into columns, blocks of four channels at a time, for the GEMM of conv/subgroup.wgsl.
//
//   columns[t, g, k, b, j] = m[n,d,k,p] * (x[n, b, p*stride - pad + k*dilation + offset[n,d,k,p]])
//
// Columns stand in tiles of `width` positions, the GEMM's: position j of tile t is n*count + i = t*width + j, p = first + i.
// x: [N,B,H,W] of vec4 (conv/blocks.wgsl, a vec4 of zeros at `zero`), B the blocks of all weight groups; d = b / BD, the offset group.
// columns: [T,G,K,B/G,J] of vec4. offset [N,D,K,2,P], mask [N,D,K,P], in windows that start at the bases.
// A thread takes one position, one tap and up to `each` blocks of one offset group: the neighbours and their weights are found once.
struct Params {
    first_group: u32,
    in_h: i32, in_w: i32, out_w: i32, positions: u32,
    k_w: i32, taps: u32, s_h: i32, s_w: i32,
    d_h: i32, d_w: i32, p_h: i32, p_w: i32,
    // blocks of an offset group, of a thread; threads an offset group takes for a position and a tap
    bd: u32, each: u32, rounds: u32, offset_groups: u32,
    first: u32, count: u32, total: u32, zero: u32,
    offset_base: u32, mask_base: u32, width: u32, columns: u32, group_blocks: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Quad>;
@group(0) @binding(2) var<storage, read> offset: array<f32>;
//% if MASK
@group(0) @binding(3) var<storage, read> mask: array<f32>;
//% endif
@group(0) @binding(4) var<storage, read_write> columns: array<Quad>;
//% include "common/grid.wgsl"
//% include "common/wide.wgsl"
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
    let k = rest % params.taps;
    rest /= params.taps;
    let start = rest % params.rounds * params.each;
    rest /= params.rounds;
    let d = rest % params.offset_groups;
    let tile = rest / params.offset_groups;
    let flat = tile * params.width + j;
    if (flat >= params.columns) {
        return;
    }
    let n = flat / params.count;
    let q = params.first + flat % params.count;
    let at_h = i32(q) / params.out_w * params.s_h - params.p_h + i32(k) / params.k_w * params.d_h;
    let at_w = i32(q) % params.out_w * params.s_w - params.p_w + i32(k) % params.k_w * params.d_w;
    let field = (n * params.offset_groups + d) * params.taps + k;
    let offset_at = field * 2u * params.positions + q - params.offset_base;
    // The coordinate is one f32 addition, by definition.
    let point_y = f32(at_h) + offset[offset_at];
    let point_x = f32(at_w) + offset[offset_at + params.positions];
    let near = corners(point_y, point_x, params.in_h, params.in_w);
//% if MASK
    let m = mask[field * params.positions + q - params.mask_base];
//% endif
    let first_block = d * params.bd + start;
    let round = min(params.each, params.bd - start);
    let blocks = params.offset_groups * params.bd;
    let plane = u32(params.in_h * params.in_w);
    // A neighbour outside the image reads the vec4 of zeros, whatever the block.
    var x_at = select(vec4<u32>(params.zero), vec4<u32>((n * blocks + first_block) * plane) + near.at, near.inside);
    let x_step = select(vec4<u32>(), vec4<u32>(plane), near.inside);
    // Blocks of a weight group stand together, those of the next behind all its taps.
    let g = first_block / params.group_blocks;
    var in_group = first_block - g * params.group_blocks;
    var column = ((tile * blocks + g * params.group_blocks) * params.taps + k * params.group_blocks + in_group) * params.width + j;
    let over_taps = (params.taps - 1u) * params.group_blocks * params.width;
    var i = 0u;
    loop {
        let top = unpack(x[x_at.x]) * near.weight.x + unpack(x[x_at.y]) * near.weight.y;
        let bottom = unpack(x[x_at.z]) * near.weight.z + unpack(x[x_at.w]) * near.weight.w;
        // Channels past a group's last are 0, or NaN under an infinite mask: the GEMM leaves them out of sums that are not finite.
        columns[column] = pack((top + bottom){% if MASK %} * m{% endif %});
        x_at += x_step;
        in_group++;
        let group_done = in_group == params.group_blocks;
        in_group = select(in_group, 0u, group_done);
        column += params.width + select(0u, over_taps, group_done);
        i++;
        if (i >= round) {
            break;
        }
    }
}
