// The exponents of four numbers, all ones for NaN and infinities: finiteness is tested on the bits, since compilers may take x != x for
// false.
fn exponent_bits(v: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u);
}

fn all_finite(v: vec4<f32>) -> bool {
    return all(exponent_bits(v) != vec4<u32>(0x7f800000u));
}
