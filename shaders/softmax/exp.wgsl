// exp of what is not positive; 0 where the true value is below the least normal number, 2^-126.
fn exp_below(v: f32) -> f32 {
    return select(exp(max(v, -87.33654)), 0.0, v < -87.33654);
}

// On the bits, since a compiler may take NaN for impossible.
fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}
