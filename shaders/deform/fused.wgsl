// Deformable convolution as an implicit GEMM through workgroup memory, for GPUs: no columns, no subgroup operations.
//
//   y[n,o,p] = act(bias[o] + sum over c, k of w[o,c,k] * m[n,d,k,p] * x[n, g(o)*CG + c, p*stride - pad + k*dilation + offset[n,d,k,p]]
//              + residual[n,o,p])
//
// The matrix product of conv/tiled.wgsl, whose memory, multiplication and epilogue these are: BM output channels x BN positions (n, p) a
// workgroup, TM x TN a thread, over K = taps x blocks of four channels in slices of BK, blocks the fastest.
// x: [N,B,H,W] of vec4 (conv/blocks.wgsl, a vec4 of zeros at `zero`), B the blocks of all weight groups; d = b / BD, the offset group.
// w: [G,T,taps,4B,BM] (conv/pack.wgsl with OC = BM). offset [N,D,K,2,P], mask [N,D,K,P], y, residual [N,O,P].
// Bindings may be windows: the bases count from the dispatch's first image.
// A thread stays at one position while it fills b: it finds the four neighbours of a tap and their weights once for all blocks of an
// offset group, and the mask with them. A sample is the one of deform/sample.wgsl, to the bit.
//
// Error: a plain sum of samples with nine roundings each, in whatever order (docs/numerics.md).
//% set THREADS = BM * BN // (TM * TN)
//% set TX = BN // TN
//% set SIDE = THREADS // BN
//% set A = BK * BM // 4
//% set B = BK // 4 * BN
//% set OUT = "vec4<f32>" if VEC else "f32"
struct Params {
    first_group: u32,
    cg: u32, og: u32, groups: u32, blocks: u32,
    in_h: i32, in_w: i32, out_h: i32, out_w: i32,
    k_w: u32, taps: u32, s_h: i32, s_w: i32,
    d_h: i32, d_w: i32, p_h: i32, p_w: i32,
    // blocks of an offset group, offset groups; what a thread goes forward in taps and blocks from one load to its next
    bd: u32, offset_groups: u32, hop_taps: u32, hop_blocks: u32,
    tiles: u32, position_tiles: u32, positions: u32, total: u32,
    slices: u32, zero: u32, offset_base: u32, mask_base: u32,
    y_start: u32, activation: u32, slope: f32, has_bias: u32,
    has_residual: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<{{ OUT }}>;
@group(0) @binding(5) var<storage, read> offset: array<f32>;
@group(0) @binding(6) var<storage, read> mask: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<{{ OUT }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "deform/corners.wgsl"
//% include "conv/tiled_memory.wgsl"

fn out_plane() -> u32 {
    return u32(params.out_h * params.out_w);
}

// The bias of output channel o; without one the buffer is a few zeros, of which the first is read.
fn bias_of(o: u32) -> f32 {
    return bias[select(0u, o, params.has_bias == 1u)];
}

@compute @workgroup_size({{ THREADS }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let live = index < params.total;
    // All that steers the loop of slices and its barriers comes from here and from the parameters: the same in the whole workgroup.
    var rest = min(index, params.total - 1u);
    let tile = rest % params.tiles;
    rest /= params.tiles;
    let first = rest % params.position_tiles * {{ BN }}u;
    let g = rest / params.position_tiles;

    // What the thread loads: vec4s `local`, `local + THREADS`, ... of a slice of the packed weights, and samples at one position.
    let rows = params.taps * params.blocks * 4u;
    let w_end = ((g * params.tiles + tile) + 1u) * rows * {{ BM // 4 }}u;
    var w_at = w_end - rows * {{ BM // 4 }}u + local;
    let column = local % {{ BN }}u;
    let column_live = first + column < params.positions;
    let flat = min(first + column, params.positions - 1u);
    let n = flat / out_plane();
    let q = flat % out_plane();
    let at_h = i32(q) / params.out_w * params.s_h - params.p_h;
    let at_w = i32(q) % params.out_w * params.s_w - params.p_w;
    let plane = u32(params.in_h * params.in_w);
    let first_block = g * params.blocks;
    let image = n * params.groups * params.blocks + first_block;
    var k = local / {{ BN }}u / params.blocks;
    var block = local / {{ BN }}u % params.blocks;
    let b_to = local / {{ BN }}u * {{ BN }}u + slot(column);
    // The neighbours under a tap in an offset group, and which these two are.
    var near = Corners();
    var m = 1.0;
    var found = 0xffffffffu;

//% include "conv/tiled_sums.wgsl"

    // One barrier a slice is enough: conv/tiled.wgsl says why.
    for (var s = 0u; s <= params.slices; s++) {
        let half = s % 2u;
//% for i in range(A // THREADS)
        var a{{ i }} = vec4<f32>();
//% endfor
//% for i in range(B // THREADS)
        var b{{ i }} = vec4<f32>();
//% endfor
        if (s < params.slices) {
//% for i in range(A // THREADS)
            // Behind the last row stand other weights, whose NaN times 0 would be NaN.
            a{{ i }} = select(vec4<f32>(), w[min(w_at + {{ i * THREADS }}u, w_end - 1u)], w_at + {{ i * THREADS }}u < w_end);
//% endfor
            w_at += {{ A }}u;
//% for i in range(B // THREADS)
            if (column_live & (k < params.taps)) {
                let d = (first_block + block) / params.bd;
                let field = (n * params.offset_groups + d) * params.taps + k;
                if (field != found) {
                    found = field;
                    let offset_at = field * 2u * out_plane() + q - params.offset_base;
                    // The coordinate is one f32 addition, by definition.
                    let point_y = f32(at_h + i32(k / params.k_w) * params.d_h) + offset[offset_at];
                    let point_x = f32(at_w + i32(k % params.k_w) * params.d_w) + offset[offset_at + out_plane()];
                    near = corners(point_y, point_x, params.in_h, params.in_w);
//% if MASK
                    m = mask[field * out_plane() + q - params.mask_base];
//% endif
                }
                // A neighbour outside the image reads the vec4 of zeros, whatever the block.
                let x_at = select(vec4<u32>(params.zero), vec4<u32>((image + block) * plane) + near.at, near.inside);
                let top = x[x_at.x] * near.weight.x + x[x_at.y] * near.weight.y;
                let bottom = x[x_at.z] * near.weight.z + x[x_at.w] * near.weight.w;
                // Channels past a group's last are 0 also under an infinite mask.
                let channel = vec4<u32>(block * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
                b{{ i }} = select(vec4<f32>(), (top + bottom){% if MASK %} * m{% endif %}, channel < vec4<u32>(params.cg));
            }
            k += params.hop_taps;
            block += params.hop_blocks;
            if (block >= params.blocks) {
                block -= params.blocks;
                k++;
            }
//% endfor
        }
        if (s > 0u) {
//% include "conv/tiled_product.wgsl"
        }
        if (s < params.slices) {
//% for i in range(A // THREADS)
            a[half * {{ A }}u + local + {{ i * THREADS }}u] = a{{ i }};
//% endfor
//% for i in range(B // THREADS)
            b[half * {{ B }}u + b_to + {{ i * SIDE * BN }}u] = b{{ i }};
//% endfor
        }
        workgroupBarrier();
    }

    let y_first = params.y_start;
//% include "conv/tiled_store.wgsl"
}
