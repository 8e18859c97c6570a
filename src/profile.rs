//! What an adapter is like, as plain data: all that the choice of a kernel may depend on.

/// The kind of adapter, for the choice of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterClass {
    /// A software driver: barriers and scalar loads are dear, subgroups cheap.
    Cpu,
    /// A GPU that shares the system's memory, and whatever does not say what it is.
    Integrated,
    /// A GPU with memory of its own.
    Discrete,
}

/// What the choice of a kernel depends on. Plain data, so that plans can be made and tested without a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// The kind of adapter.
    pub class: AdapterClass,
    /// The subgroup size where the adapter has subgroup operations and its least and greatest sizes are equal.
    pub subgroup: Option<u32>,
    /// Whether four numbers are best loaded as two 64-bit integers: on software drivers that have those, since they write out the load of
    /// every component.
    pub wide_loads: bool,
    /// Greatest number of invocations of a workgroup.
    pub max_invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Greatest size of a storage binding, bytes.
    pub max_binding: u64,
    /// Greatest size of a uniform binding, bytes.
    pub max_uniform: u64,
    /// Greatest size of a buffer, bytes.
    pub max_buffer: u64,
    /// Alignment of a storage binding's offset, bytes.
    pub offset_alignment: u32,
    /// Greatest number of workgroups along one axis of a dispatch.
    pub max_groups: u32,
    /// Floating-point operations of a dispatch at most, as far as whole workgroups can, and of a submission: about half a second of a slow
    /// adapter of the class, lest a driver's watchdog takes it for hung.
    pub max_work: u64,
}

impl AdapterClass {
    fn max_work(self) -> u64 {
        match self {
            Self::Cpu => 10_000_000_000,
            Self::Integrated => 100_000_000_000,
            Self::Discrete => 1_000_000_000_000,
        }
    }
}

impl Profile {
    /// A profile of WebGPU's default limits, without subgroups: what every adapter can do.
    #[must_use]
    pub fn baseline() -> Self {
        let limits = wgpu::Limits::default();
        Self {
            class: AdapterClass::Integrated,
            subgroup: None,
            wide_loads: false,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_binding: limits.max_storage_buffer_binding_size,
            max_uniform: limits.max_uniform_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            offset_alignment: limits.min_storage_buffer_offset_alignment,
            max_groups: limits.max_compute_workgroups_per_dimension,
            max_work: AdapterClass::Integrated.max_work(),
        }
    }

    pub(crate) fn of(device: &wgpu::Device) -> Self {
        let (limits, info) = (device.limits(), device.adapter_info());
        let fixed = info.subgroup_min_size == info.subgroup_max_size && info.subgroup_min_size >= 4;
        let class = match info.device_type {
            wgpu::DeviceType::Cpu => AdapterClass::Cpu,
            wgpu::DeviceType::DiscreteGpu => AdapterClass::Discrete,
            _ => AdapterClass::Integrated,
        };
        Self {
            class,
            subgroup: (device.features().contains(wgpu::Features::SUBGROUP) && fixed).then_some(info.subgroup_min_size),
            wide_loads: class == AdapterClass::Cpu && device.features().contains(wgpu::Features::SHADER_INT64),
            max_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_binding: limits.max_storage_buffer_binding_size / 16 * 16,
            max_uniform: limits.max_uniform_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            offset_alignment: limits.min_storage_buffer_offset_alignment,
            max_groups: limits.max_compute_workgroups_per_dimension,
            max_work: class.max_work(),
        }
    }

    /// Folds a count of workgroups into the three axes of a dispatch. Kernels put the index together again and leave out
    /// what is past the count.
    pub(crate) fn fold(&self, groups: u64) -> [u32; 3] {
        let max = u64::from(self.max_groups);
        if groups <= max {
            return [groups as u32, 1, 1];
        }
        let y = groups.div_ceil(max);
        if y <= max {
            return [groups.div_ceil(y) as u32, y as u32, 1];
        }
        [max as u32, max as u32, groups.div_ceil(max * max) as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As few axes as hold them, and no more workgroups than there must be.
    #[test]
    fn workgroups_fold_into_axes() {
        let profile = Profile { max_groups: 4, ..Profile::baseline() };
        for (groups, axes) in [
            (1, [1, 1, 1]),
            (4, [4, 1, 1]),
            (5, [3, 2, 1]),
            (12, [4, 3, 1]),
            (13, [4, 4, 1]),
            (16, [4, 4, 1]),
            (17, [4, 4, 2]),
            (33, [4, 4, 3]),
        ] {
            assert_eq!(profile.fold(groups), axes, "{groups}");
        }
    }
}
