// Sum or product of two tensors with numpy's broadcasting: y[i] = act(a[i] + b[i]) or act(a[i] * b[i])
//
// The shapes are brought to at most eight axes, on each of which an operand has the output's extent or repeats with stride 0.
// e0..e7: extents of the output part, the last axis first, and with VEC counted in vec4s on axis 0; a0.., b0..: the operands'
// strides, in elements an index of the axis. A thread makes one element, or with VEC four neighbours of the last axis, where an
// operand lies as whole vec4s (a_step, b_step 1) or repeats one value (0).
// y_at, a_at, b_at: where the part begins in the bound windows; total: threads.
struct Params {
    first_group: u32,
    e0: u32, e1: u32, e2: u32, e3: u32, e4: u32, e5: u32, e6: u32, e7: u32,
    a0: u32, a1: u32, a2: u32, a3: u32, a4: u32, a5: u32, a6: u32, a7: u32,
    b0: u32, b1: u32, b2: u32, b3: u32, b4: u32, b5: u32, b6: u32, b7: u32,
    total: u32, y_at: u32, a_at: u32, b_at: u32,
    a_step: u32, b_step: u32, activation: u32, slope: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
//% set element = "vec4<f32>" if VEC else "f32"
@group(0) @binding(1) var<storage, read> a: array<{{ element }}>;
@group(0) @binding(2) var<storage, read> b: array<{{ element }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ element }}>;
//% include "common/grid.wgsl"
//% include "common/activation.wgsl"

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
    var rest = index;
    var a_i = params.a_at;
    var b_i = params.b_at;
    // Axes that are not there have extent 1; most shapes come down to three.
//% for axis in range(8)
//% if axis == 3
    if (rest > 0u) {
//% endif
    a_i += rest % params.e{{ axis }} * params.a{{ axis }};
    b_i += rest % params.e{{ axis }} * params.b{{ axis }};
    rest /= params.e{{ axis }};
//% endfor
    }
//% if VEC
    let a_vec = a[a_i / 4u];
    let b_vec = b[b_i / 4u];
    let u = select(vec4<f32>(a_vec[a_i % 4u]), a_vec, params.a_step == 1u);
    let v = select(vec4<f32>(b_vec[b_i % 4u]), b_vec, params.b_step == 1u);
    y[params.y_at / 4u + index] = activate_any(u {{ "*" if MUL else "+" }} v, params.activation, params.slope);
//% else
    let sum = a[a_i] {{ "*" if MUL else "+" }} b[b_i];
    y[params.y_at + index] = activate_any(vec4<f32>(sum), params.activation, params.slope).x;
//% endif
}
