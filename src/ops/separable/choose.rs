//! Which way a separable convolution goes: a pure function of the problem and the adapter's profile.

use crate::error::{Error, Result};
use crate::profile::Profile;

use super::SeparableKernel;
use super::fused::Fused;
use super::problem::{OP, Problem};

/// The ways that can take the problem, best first by rule, and the fused one.
pub(crate) fn candidates<'a>(p: &'a Problem, profile: &'a Profile) -> (Vec<SeparableKernel>, Option<Fused<'a>>) {
    let fused = Fused::new(p, profile);
    let list = match &fused {
        Some(fused) if fused.leads() => vec![SeparableKernel::Fused, SeparableKernel::Unfused],
        Some(_) => vec![SeparableKernel::Unfused, SeparableKernel::Fused],
        None => vec![SeparableKernel::Unfused],
    };
    (list, fused)
}

/// The way asked for, or the best: none for one part after the other.
pub(crate) fn choose<'a>(p: &'a Problem, kernel: SeparableKernel, profile: &'a Profile) -> Result<Option<Fused<'a>>> {
    let (offered, fused) = candidates(p, profile);
    let kernel = if kernel == SeparableKernel::Auto { offered[0] } else { kernel };
    match (kernel, fused) {
        (SeparableKernel::Fused, Some(fused)) => Ok(Some(fused)),
        (SeparableKernel::Fused, None) => {
            let expected = format!("one that can take the problem on this adapter: {offered:?}");
            Err(Error::invalid(OP, "kernel", expected, format!("{kernel:?}")))
        }
        (SeparableKernel::Auto | SeparableKernel::Unfused, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::separable::SeparableConv2d;
    use crate::profile::AdapterClass;

    fn offered(input: [usize; 4], outputs: usize, profile: &Profile) -> Vec<SeparableKernel> {
        let (depthwise, pointwise) = ([input[1], 1, 3, 3], [outputs, input[1], 1, 1]);
        let options = SeparableConv2d::new().padding(1);
        options.candidates(profile, &input, &depthwise, &pointwise).expect("a good problem")
    }

    #[test]
    fn gpus_fuse_where_two_tiles_hold_the_outputs() {
        use SeparableKernel::{Fused, Unfused};
        let gpu = Profile { class: AdapterClass::Discrete, workgroup_bytes: 48 << 10, ..Profile::baseline() };
        let software = Profile { class: AdapterClass::Cpu, ..gpu.clone() };
        let mobilenet = [8, 32, 112, 112];
        assert_eq!(offered(mobilenet, 64, &gpu), [Fused, Unfused]);
        assert_eq!(offered(mobilenet, 64, &Profile::baseline()), [Fused, Unfused]);
        assert_eq!(offered(mobilenet, 256, &gpu), [Fused, Unfused], "two tiles of 128");
        assert_eq!(offered([8, 512, 14, 14], 1024, &gpu), [Unfused, Fused]);
        assert_eq!(offered(mobilenet, 8, &gpu), [Unfused, Fused], "a tile that is mostly empty");
        assert_eq!(offered(mobilenet, 64, &software), [Unfused, Fused]);
        assert_eq!(offered(mobilenet, 3, &gpu), [Unfused]);
        assert_eq!(offered([1, 16, 1 << 11, 1 << 11], 64, &gpu), [Unfused], "an image over the binding");
        assert_eq!(offered(mobilenet, 64, &Profile { workgroup_bytes: 4 << 10, ..gpu }), [Unfused]);
    }
}
