// The fully connected layer by dot products: WG threads share R rows and four output features.
//
//   y[m,o] = act(bias[o] + sum over i of x[m,i] * w[o,i] + residual[m,o])
//
// x [M,I], w [O,I], y and residual [M,O]. Each thread adds up every WG-th product (with VEC, four of them, read as vec4s), which
// reads rows and weights in the order in which they lie; then the WG sums of each output are added up in order, so that the result
// does not depend on timing. Rows m0.. m0 + m_count, features o0.. o0 + o_count; a tile of features is the fastest index.
struct Params {
    first_group: u32,
    steps: u32, out: u32, m0: u32, m_count: u32,
    o0: u32, o_count: u32, x_base: u32, w_base: u32,
    y_base: u32, bias_base: u32, has_bias: u32, has_residual: u32,
    activation: u32, slope: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
//% set element = "vec4<f32>" if VEC else "f32"
@group(0) @binding(1) var<storage, read> x: array<{{ element }}>;
@group(0) @binding(2) var<storage, read> w: array<{{ element }}>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
//% include "common/grid.wgsl"
//% include "common/activation.wgsl"
var<workgroup> partial: array<f32, {{ R * 4 * WG }}>;

@compute @workgroup_size({{ WG }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let tiles = (params.o_count + 3u) / 4u;
    // Rows and features past the last are read again as the last, and not written.
    let o = index % tiles * 4u;
    let m = index / tiles * {{ R }}u;
//% for j in range(4)
    let w_at{{ j }} = (params.o0 + min(o + {{ j }}u, params.o_count - 1u)) * params.steps - params.w_base;
//% endfor
//% for r in range(R)
    let x_at{{ r }} = (params.m0 + min(m + {{ r }}u, params.m_count - 1u)) * params.steps - params.x_base;
//% for j in range(4)
    var sum{{ r }}_{{ j }} = {{ element }}();
//% endfor
//% endfor
    for (var i = local; i < params.steps; i += {{ WG }}u) {
//% for j in range(4)
        let w{{ j }} = w[w_at{{ j }} + i];
//% endfor
//% for r in range(R)
        let x{{ r }} = x[x_at{{ r }} + i];
//% for j in range(4)
        sum{{ r }}_{{ j }} += w{{ j }} * x{{ r }};
//% endfor
//% endfor
    }
//% for r in range(R)
//% for j in range(4)
//% if VEC
    partial[{{ (r * 4 + j) * WG }}u + local] =
        (sum{{ r }}_{{ j }}.x + sum{{ r }}_{{ j }}.y) + (sum{{ r }}_{{ j }}.z + sum{{ r }}_{{ j }}.w);
//% else
    partial[{{ (r * 4 + j) * WG }}u + local] = sum{{ r }}_{{ j }};
//% endif
//% endfor
//% endfor
    workgroupBarrier();
    for (var t = local; t < {{ R * 4 }}u; t += {{ WG }}u) {
        let row = m + t / 4u;
        let feature = o + t % 4u;
        if (row < params.m_count && feature < params.o_count) {
            var sum = 0.0;
            for (var k = 0u; k < {{ WG }}u; k++) {
                sum += partial[t * {{ WG }}u + k];
            }
            let at = (params.m0 + row) * params.out + params.o0 + feature - params.y_base;
            if (params.has_bias == 1u) {
                sum += bias[params.o0 + feature - params.bias_base];
            }
            if (params.has_residual == 1u) {
                sum += residual[at];
            }
            y[at] = activate_any(vec4<f32>(sum), params.activation, params.slope).x;
        }
    }
}
