// Activations, numbered as `Activation::code` in src/ops/activation.rs does. NaN stays NaN, also through relu, hence comparisons and
// selects and not max and clamp, which may drop it. Arguments of exp are clamped, since some compilers take overflow for impossible.

// 0 none, 1 relu, 2 relu6, 3 leaky relu: cheap enough to decide at run time.
fn activate_linear(v: vec4<f32>, kind: u32, slope: f32) -> vec4<f32> {
    let below = select(vec4<f32>(), v * slope, kind == 3u);
    let low = select(v, below, (v < vec4<f32>()) & vec4<bool>(kind != 0u));
    return select(low, vec4<f32>(6.0), (low > vec4<f32>(6.0)) & vec4<bool>(kind == 2u));
}

// exp of a non-positive argument; 0 from -87 on, where the true value is denormal.
fn exp_nonpositive(v: vec4<f32>) -> vec4<f32> {
    return select(exp(max(v, vec4<f32>(-87.0))), vec4<f32>(), v < vec4<f32>(-87.0));
}

fn activate_sigmoid(v: vec4<f32>) -> vec4<f32> {
    let e = exp_nonpositive(-abs(v));
    let r = select(vec4<f32>(1.0), e, v < vec4<f32>()) / (1.0 + e);
    return select(r, v, v != v);
}

fn activate_tanh(v: vec4<f32>) -> vec4<f32> {
    return select(tanh(clamp(v, vec4<f32>(-15.0), vec4<f32>(15.0))), v, v != v);
}

fn activate_silu(v: vec4<f32>) -> vec4<f32> {
    return v * activate_sigmoid(v);
}

fn erf4(v: vec4<f32>) -> vec4<f32> {
    let a = min(abs(v), vec4<f32>(4.0));
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(v) * (1.0 - p * exp(-a * a));
}

fn activate_gelu(v: vec4<f32>) -> vec4<f32> {
    return 0.5 * v * (1.0 + erf4(v * 0.70710678118654752));
}

fn activate_gelu_tanh(v: vec4<f32>) -> vec4<f32> {
    return 0.5 * v * (1.0 + activate_tanh(0.79788456080286536 * (v + 0.044715 * v * v * v)));
}

fn activate_hard_sigmoid(v: vec4<f32>) -> vec4<f32> {
    let r = v / 6.0 + 0.5;
    let low = select(r, vec4<f32>(), v <= vec4<f32>(-3.0));
    return select(low, vec4<f32>(1.0), v >= vec4<f32>(3.0));
}

fn activate_hard_swish(v: vec4<f32>) -> vec4<f32> {
    let low = select(v * activate_hard_sigmoid(v), vec4<f32>(), v <= vec4<f32>(-3.0));
    return select(low, v, v >= vec4<f32>(3.0));
}

fn activate_any(v: vec4<f32>, kind: u32, slope: f32) -> vec4<f32> {
    switch kind {
        case 4u: { return activate_sigmoid(v); }
        case 5u: { return activate_tanh(v); }
        case 6u: { return activate_silu(v); }
        case 7u: { return activate_gelu(v); }
        case 8u: { return activate_gelu_tanh(v); }
        case 9u: { return activate_hard_sigmoid(v); }
        case 10u: { return activate_hard_swish(v); }
        default: { return activate_linear(v, kind, slope); }
    }
}
