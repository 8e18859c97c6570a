// The activation of a kernel with many outputs a thread: which one is a constant of the instance, since a switch at each of them
// would make the shader several times as long. ACT 0 stands for none, relu, relu6 and leaky relu, told apart at run time.
//% include "common/activation.wgsl"
fn activate(v: vec4<f32>, kind: u32, slope: f32) -> vec4<f32> {
//% if ACT == 4
    return activate_sigmoid(v);
//% elif ACT == 5
    return activate_tanh(v);
//% elif ACT == 6
    return activate_silu(v);
//% elif ACT == 7
    return activate_gelu(v);
//% elif ACT == 8
    return activate_gelu_tanh(v);
//% elif ACT == 9
    return activate_hard_sigmoid(v);
//% elif ACT == 10
    return activate_hard_swish(v);
//% else
    return activate_linear(v, kind, slope);
//% endif
}
