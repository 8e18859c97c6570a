// Activations, numbered as `Activation::code` in src/ops/activation.rs does; the error bound of each stands there.
// NaN stays NaN, also through relu, hence comparisons and selects and not max and clamp, which may drop it; where arithmetic alone
// would not carry it through, it is recognised by its bits, since a compiler may take `v != v` for impossible. Infinities give what
// PyTorch's formulas give: silu, gelu and hard_swish of minus infinity are NaN. Arguments of exp are clamped.

fn is_nan(v: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

// 0 none, 1 relu, 2 relu6, 3 leaky relu: cheap enough to decide at run time.
fn activate_linear(v: vec4<f32>, kind: u32, slope: f32) -> vec4<f32> {
    let below = select(vec4<f32>(), v * slope, kind == 3u);
    let low = select(v, below, (v < vec4<f32>()) & vec4<bool>(kind != 0u));
    return select(low, vec4<f32>(6.0), (low > vec4<f32>(6.0)) & vec4<bool>(kind == 2u));
}

// exp of a non-positive argument; 0 where the true value is below the least normal number, 2^-126.
fn exp_nonpositive(v: vec4<f32>) -> vec4<f32> {
    return select(exp(max(v, vec4<f32>(-87.33654))), vec4<f32>(), v < vec4<f32>(-87.33654));
}

// 1 / (1 + exp(-v)) as e / (1 + e) below 0, which neither overflows nor loses digits. Not for NaN.
fn logistic(v: vec4<f32>) -> vec4<f32> {
    let e = exp_nonpositive(-abs(v));
    return select(vec4<f32>(1.0), e, v < vec4<f32>()) / (1.0 + e);
}

fn activate_sigmoid(v: vec4<f32>) -> vec4<f32> {
    return select(logistic(v), v, is_nan(v));
}

// WGSL lets tanh be off by 1e-5. Up to 0.625 an odd polynomial, v + v^3 P(v^2): P is the minimax fit (Remez) of degree 4 to
// (tanh(v)/v - 1)/v^2, which leaves a relative error of 8.6e-9 at 0.604. Beyond, (1 - e)/(1 + e) with e = exp(-2|v|).
fn activate_tanh(v: vec4<f32>) -> vec4<f32> {
    let c = clamp(v, vec4<f32>(-1.0), vec4<f32>(1.0));
    let u = c * c;
    let p = -0.333332807 + u * (0.133314416 + u * (-0.0537397154 + u * (0.020639088 + u * -0.00570498733)));
    let near = c + c * (u * p);
    let e = exp_nonpositive(-2.0 * abs(v));
    let far = (1.0 - e) / (1.0 + e);
    return select(select(near, select(far, -far, v < vec4<f32>()), abs(v) > vec4<f32>(0.625)), v, is_nan(v));
}

fn activate_silu(v: vec4<f32>) -> vec4<f32> {
    return v * logistic(v);
}

// v * Phi(v). With a = |v|, Phi(-a) = exp(-a^2/2) * g(a), where g(a) = exp(a^2/2) * erfc(a/sqrt(2)) / 2 is smooth and slow; so the
// relative error stays small where Phi is tiny. g is t * P(t) with t = 1/(1 + 0.28 a): P is the minimax fit (Remez, relative error)
// of degree 8 over 0 <= a <= 13.3, behind which exp is 0; the fit leaves 5.0e-8, with the rounded coefficients 7.4e-8.
fn activate_gelu(v: vec4<f32>) -> vec4<f32> {
    let a = min(abs(v), vec4<f32>(14.0));
    let t = 1.0 / (1.0 + 0.28 * a);
    let high = 0.0496770144 + t * (0.0259261634 + t * (0.0654176101 + t * (-0.0812900215 + t * 0.0223711841)));
    let g = t * (0.111683704 + t * (0.112053767 + t * (0.100520983 + t * (0.0936396122 + t * high))));
    let q = exp_nonpositive(-0.5 * a * a) * g;
    return v * select(1.0 - q, q, v < vec4<f32>());
}

// v/2 * (1 + tanh(z)) is v * logistic(2z), which does not cancel. Beyond 11 the logistic is 0 or 1, and v^3 would overflow.
fn activate_gelu_tanh(v: vec4<f32>) -> vec4<f32> {
    let c = clamp(v, vec4<f32>(-11.0), vec4<f32>(11.0));
    return v * logistic(c * (1.5957691216 + 0.0713548163 * c * c));
}

fn activate_hard_sigmoid(v: vec4<f32>) -> vec4<f32> {
    let low = select((v + 3.0) / 6.0, vec4<f32>(), v <= vec4<f32>(-3.0));
    return select(low, vec4<f32>(1.0), v >= vec4<f32>(3.0));
}

fn activate_hard_swish(v: vec4<f32>) -> vec4<f32> {
    return v * activate_hard_sigmoid(v);
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
