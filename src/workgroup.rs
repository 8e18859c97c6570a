//! NaN in workgroup memory at a shader's entry, for a guarded [`Gpu`](crate::Gpu).
//!
//! Software drivers hand out zeroed memory and run a workgroup's threads in order, which hides a read of what nobody wrote and a barrier
//! that is missing. With this every word is NaN until the shader writes it, and the barrier behind the filling makes a driver that runs
//! threads one after the other stop there: what a thread then reads before its neighbour wrote it is NaN.

/// The same shader with all its workgroup memory NaN from the start. A shader without any stays as it is.
pub(crate) fn poisoned(source: &str) -> String {
    let arrays: Vec<(&str, &str, &str)> = source.lines().filter_map(array).collect();
    let (Some(threads), Some(local)) =
        (between(source, "@workgroup_size(", ")"), between(source, "@builtin(local_invocation_index) ", ":"))
    else {
        return source.to_string();
    };
    let Some(body) = source.find("fn main(").and_then(|main| Some(main + source[main..].find("\n) {\n")? + 5)) else {
        return source.to_string();
    };
    if arrays.is_empty() {
        return source.to_string();
    }
    // A NaN that is known when the shader is compiled is an error in WGSL.
    let mut fill = format!("    let poison = bitcast<f32>(0x7fc00001u + {local});\n");
    for (name, element, length) in arrays {
        fill += &format!(
            "    for (var i = {local}; i < {length}; i += {threads}u) {{\n        {name}[i] = {element}(poison);\n    }}\n"
        );
    }
    fill += "    workgroupBarrier();\n";
    [&source[..body], &fill, &source[body..]].concat()
}

/// Name, element and length of the array that a line declares in workgroup memory.
fn array(line: &str) -> Option<(&str, &str, &str)> {
    // An included file that ends without a newline may stand before it.
    let (name, rest) = line.split_once("var<workgroup> ")?.1.split_once(": array<")?;
    let (element, length) = rest.strip_suffix(">;")?.rsplit_once(", ")?;
    Some((name, element, length))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

#[cfg(test)]
mod tests {
    use super::poisoned;

    #[test]
    fn arrays_are_filled_first() {
        let source = "var<workgroup> a: array<vec4<f32>, 8>;\nvar<workgroup> b: array<f32, 3>;\n\
                      @compute @workgroup_size(4)\nfn main(\n    @builtin(local_invocation_index) local: u32,\n) {\n    a[local] = 1;\n}\n";
        let text = poisoned(source);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        assert!(
            at("{\n    let poison") < at("a[i] = vec4<f32>(poison)") && at("i < 8; i += 4u") < at("i < 3; i += 4u")
        );
        assert!(at("b[i] = f32(poison)") < at("workgroupBarrier") && at("workgroupBarrier") < at("a[local] = 1"));
        let plain = source.replace("var<workgroup>", "var<private>");
        assert_eq!(poisoned(&plain), plain);
    }
}
