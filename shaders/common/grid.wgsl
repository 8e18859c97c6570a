// The index of a workgroup, put together from the axes that a long dispatch is folded into; of a dispatch that is cut, `first_group` are before.
fn group_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return params.first_group + group.x + groups.x * (group.y + groups.y * group.z);
}
