// Packs weights for the kernels that hand them round a subgroup: OC output channels lie together.
//
//   out[g, t, k, c, o] = w[group_stride*g + o_stride*(t*OC + o) + c_stride*c + k]    0 past the last channel of either kind
//
// out [G, T, K, channels, OC] as vec4s over o, or [G, T, channels, K, OC] where the taps are inside; T = ceil(OG/OC), channels are CG
// rounded up. With flip, k counts from the last tap.
// Convolution: w [O,CG,K]: strides OG*CG*K, CG*K, K. Transposed: w [C,OG,K]: strides CG*OG*K, K, OG*K.
struct Params {
    first_group: u32,
    cg: u32, og: u32, taps: u32, channels: u32,
    group_stride: u32, o_stride: u32, c_stride: u32, flip: u32,
    tiles: u32, total: u32, taps_inside: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
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
    let o4 = index % {{ OC // 4 }}u * 4u;
    var rest = index / {{ OC // 4 }}u;
    let pair = rest % (params.channels * params.taps);
    rest /= params.channels * params.taps;
    let c = select(pair % params.channels, pair / params.taps, params.taps_inside == 1u);
    let k = select(pair / params.channels, pair % params.taps, params.taps_inside == 1u);
    let o = rest % params.tiles * {{ OC }}u + o4;
    let g = rest / params.tiles;
    let tap = select(k, params.taps - 1u - k, params.flip == 1u);
    let at = g * params.group_stride + c * params.c_stride + tap;
    var v = vec4<f32>();
//% for j in range(4)
    if (c < params.cg && o + {{ j }}u < params.og) {
        v[{{ j }}] = w[at + (o + {{ j }}u) * params.o_stride];
    }
//% endfor
    out[index] = v;
}
