//! Parameter structs that shaders share with the host.

/// Names and byte offsets of a parameter struct's fields, for the test that compares them with the shader's.
#[cfg(test)]
pub(crate) type Fields = &'static [(&'static str, usize)];

/// Declares a parameter struct of 4-byte scalars as the shader of the same name has it behind `first_group`.
macro_rules! params {
    ($(#[$meta:meta])* pub struct $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name { $(pub $field: $kind),* }

        #[cfg(test)]
        impl $name {
            pub(crate) const FIELDS: $crate::params::Fields = &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
        }
    };
}

pub(crate) use params;
