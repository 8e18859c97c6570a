// Numbers as they lie in a buffer, by four and by two: vectors or, with WIDE, 64-bit integers of the same bits. A software driver writes a
// load out for every lane and component, and so takes half as many instructions for half as many components.
//% if WIDE
alias Quad = vec2<u64>;
alias Pair = u64;

fn unpack(quad: Quad) -> vec4<f32> {
    let low = vec2<u32>(quad);
    let high = vec2<u32>(quad >> vec2<u32>(32u));
    return bitcast<vec4<f32>>(vec4<u32>(low.x, high.x, low.y, high.y));
}

fn pack(value: vec4<f32>) -> Quad {
    let bits = bitcast<vec4<u32>>(value);
    return vec2<u64>(bits.xz) | (vec2<u64>(bits.yw) << vec2<u32>(32u));
}

fn unpack_pair(pair: Pair) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(u32(pair), u32(pair >> 32u)));
}

fn pack_pair(value: vec2<f32>) -> Pair {
    let bits = bitcast<vec2<u32>>(value);
    return u64(bits.x) | (u64(bits.y) << 32u);
}
//% else
alias Quad = vec4<f32>;
alias Pair = vec2<f32>;

fn unpack(quad: Quad) -> vec4<f32> {
    return quad;
}

fn pack(value: vec4<f32>) -> Quad {
    return value;
}

fn unpack_pair(pair: Pair) -> vec2<f32> {
    return pair;
}

fn pack_pair(value: vec2<f32>) -> Pair {
    return value;
}
//% endif
