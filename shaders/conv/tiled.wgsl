// Convolution as an implicit GEMM through workgroup memory, for GPUs: no subgroup operations, any geometry, any border.
//
//   y[n,o,q] = act(bias[o] + sum over taps k, channels c of w[o,c,k] * x[n, g(o)*CG + c, q*stride - pad + k*dilation] + residual[n,o,q])
//
// Per group a matrix product: BM output channels x BN output positions (n, q) a workgroup, TM x TN a thread, over K = taps x
// channels in slices of BK. K counts the channels fastest, each tap's padded to B = ceil(CG/4) blocks of four.
// x [N,C,D,H,W]. w [G,T,taps,4B,BM] (conv/pack.wgsl with OC = BM). y, residual [N,O,Q], as vec4s with VEC: Q in multiples of four.
// With `splits` above 1 each part of the slices leaves sums [splits,N,O,Q] in y, for conv/tiled_sum.wgsl; no epilogue then.
//
// Workgroup memory holds two slices, one being filled while the other is read:
//   a: [BK][BM/4] vec4s of four output channels, as packed; b: [BK/4][BN] vec4s of four input channels at one position.
// A thread fills whole vec4s of b: it stays at one position, whose n and q it works out once, and goes through the blocks of K.
// Its loads are next to its neighbour's. For four steps of K a thread reads TM + TN vec4s and makes 4 * TM * TN multiply-adds:
// 2 flops a byte of workgroup memory with 8x8, 1.33 with 4x8, 1 with 4x4. From global memory 2*BM*BN / (4*(BM + BN)) flops a byte:
// 32 for 128x128, 16 for 64x64, 10.7 for 32x64, 8 for 32x32.
//
// A thread owns output channels h*BM/2 + 4*ty + 0..3, h < TM/4. With VEC it owns positions h*BN/2 + 4*tx + 0..3, and the four
// quarters of a row of b hold the positions 0, 1, 2, 3 modulo 4, each quarter in an order (`slot`) that lets eight neighbouring
// threads write, and read, eight different vec4s modulo 8: different banks. Without VEC it owns positions tx + j*TX, in b in their
// own order, and stores scalars next to its neighbour's.
//
// Error: every product enters a plain sum, in whatever order; at most n roundings reach it, also where K is split into s parts,
// each with a product at least: n_part + (s - 1) <= n. Channels past the last and taps in the padding add exact zeros.
//% set THREADS = BM * BN // (TM * TN)
//% set TX = BN // TN
//% set SIDE = THREADS // BN
//% set A = BK * BM // 4
//% set B = BK // 4 * BN
//% include "conv/tiled_common.wgsl"
//% set OUT = "vec4<f32>" if VEC else "f32"
@group(0) @binding(4) var<storage, read> residual: array<{{ OUT }}>;
@group(0) @binding(5) var<storage, read_write> y: array<{{ OUT }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"

//% include "conv/tiled_memory.wgsl"

// Four channels under one tap: k = (tap along depth, height, width; block). Zeros in the padding, past K and past the last channel.
fn load_x(x_at: u32, start: vec3<i32>, k: vec4<u32>, live: bool) -> vec4<f32> {
    let i = start + vec3<i32>(k.xyz) * vec3<i32>(params.d_d, params.d_h, params.d_w);
//% if BORDER
    let at = vec3<i32>(
        border_index(i.x, params.in_d, params.border),
        border_index(i.y, params.in_h, params.border),
        border_index(i.z, params.in_w, params.border));
    let inside = live & (k.x < u32(params.k_d)) & all(at >= vec3<i32>());
//% else
    let at = i;
    // Below 0 is far above as an unsigned number.
    let inside = live & (k.x < u32(params.k_d)) & all(vec3<u32>(i) < vec3<u32>(vec3<i32>(params.in_d, params.in_h, params.in_w)));
//% endif
    let plane = select(0u, in_plane(), inside);
    let c = k.w * 4u;
    let first = select(0u, x_at + c * plane + u32((at.x * params.in_h + at.y) * params.in_w + at.z), inside);
    let last = params.cg - 1u - c;
    let v = vec4<f32>(x[first], x[first + min(1u, last) * plane], x[first + min(2u, last) * plane], x[first + min(3u, last) * plane]);
    return select(vec4<f32>(), v, vec4<bool>(inside) & (vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(last)));
}

// The block of K that the thread loads next: a number of four digits goes forward by `hop`, with carries. Past K the first digit
// grows beyond its size.
fn advance(k: vec4<u32>) -> vec4<u32> {
    var next = k + vec4<u32>(params.hop_d, params.hop_h, params.hop_w, params.hop_b);
    let carry_b = u32(next.w >= params.blocks);
    next.w -= carry_b * params.blocks;
    next.z += carry_b;
    let carry_w = u32(next.z >= u32(params.k_w));
    next.z -= carry_w * u32(params.k_w);
    next.y += carry_w;
    let carry_h = u32(next.y >= u32(params.k_h));
    next.y -= carry_h * u32(params.k_h);
    next.x += carry_h;
    return next;
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
    rest /= params.position_tiles;
    let g = rest % params.groups;
    let split = rest / params.groups;
    let begin = split * params.part;
    let end = min(begin + params.part, params.slices);

    // What the thread loads: vec4s `local`, `local + THREADS`, ... of a slice of the packed weights, and one position of x.
    let rows = u32(params.k_d * params.k_h * params.k_w) * params.blocks * 4u;
    let w_end = ((g * params.tiles + tile) + 1u) * rows * {{ BM // 4 }}u;
    var w_at = w_end - rows * {{ BM // 4 }}u + begin * {{ A }}u + local;
    let column = local % {{ BN }}u;
    let column_live = first + column < params.positions;
    let column_flat = min(first + column, params.positions - 1u);
    let x_at = image(column_flat / out_plane(), g);
    let start = window_start(column_flat % out_plane());
    let block = begin * {{ BK // 4 }}u + local / {{ BN }}u;
    let tap = block / params.blocks;
    let k_w = u32(params.k_w);
    let k_h = u32(params.k_h);
    var k = vec4<u32>(tap / k_w / k_h, tap / k_w % k_h, tap % k_w, block % params.blocks);
    let b_to = local / {{ BN }}u * {{ BN }}u + slot(column);

//% include "conv/tiled_sums.wgsl"

    // Step s loads slice s, multiplies slice s - 1 while the loads are under way, and stores slice s into the half that step s - 1
    // was the last to read. The barrier at its end separates those stores from the reads of step s + 1, and the reads of step s from
    // the stores of step s + 1: one a slice is enough.
    for (var s = begin; s <= end; s++) {
        let half = s % 2u;
//% for i in range(A // THREADS)
        var a{{ i }} = vec4<f32>();
//% endfor
//% for i in range(B // THREADS)
        var b{{ i }} = vec4<f32>();
//% endfor
        if (s < end) {
//% for i in range(A // THREADS)
            // Behind the last row stand other weights, whose NaN times 0 would be NaN.
            a{{ i }} = select(vec4<f32>(), w[min(w_at + {{ i * THREADS }}u, w_end - 1u)], w_at + {{ i * THREADS }}u < w_end);
//% endfor
            w_at += {{ A }}u;
//% for i in range(B // THREADS)
            b{{ i }} = load_x(x_at, start, k, column_live);
            k = advance(k);
//% endfor
        }
        if (s > begin) {
//% include "conv/tiled_product.wgsl"
        }
        if (s < end) {
//% for i in range(A // THREADS)
            a[half * {{ A }}u + local + {{ i * THREADS }}u] = a{{ i }};
//% endfor
//% for i in range(B // THREADS)
            b[half * {{ B }}u + b_to + {{ i * SIDE * BN }}u] = b{{ i }};
//% endfor
        }
        workgroupBarrier();
    }

    let y_first = params.y_start + split * params.sums;
//% include "conv/tiled_store.wgsl"

    var exponent = vec4<u32>();
//% for p in range(TN)
//% for h in range(TM // 4)
    exponent = max(exponent, exponent_bits(sum{{ p }}_{{ h }}));
//% endfor
//% endfor
    if (live && params.splits == 1u && any(exponent == vec4<u32>(0x7f800000u))) {
        // One loop over outputs and positions, everything computed anew: it is seldom needed and short.
        for (var i = 0u; i < {{ TM * TN }}u; i++) {
            let r = i / {{ TN }}u;
            let p = i % {{ TN }}u;
            let o = o_tile + r / 4u * {{ BM // 2 }}u + r % 4u;
            let flat = first + {% if VEC %}p / 4u * {{ BN // 2 }}u + p % 4u + 4u * tx{% else %}p * {{ TX }}u + tx{% endif %};
            if (o < params.og && flat < params.positions) {
                let n = flat / out_plane();
                let q = flat % out_plane();
                let at = y_first + (n * channels + g * params.og + o) * out_plane() + q;
                var v = exact(image(n, g), g, o, window_start(q)) + bias_of(g * params.og + o);
                if (params.has_residual == 1u) {
                    v += residual[at{% if VEC %} / 4u][at % 4u{% endif %}];
                }
                y[at{% if VEC %} / 4u][at % 4u{% endif %}] = activate(vec4<f32>(v), params.activation, params.slope).x;
            }
        }
    }
}
