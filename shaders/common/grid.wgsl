// The index of a workgroup, put together from the axes that a long dispatch is folded into.
fn group_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.x + groups.x * (group.y + groups.y * group.z);
}
