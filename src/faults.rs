//! Faults on request: a test sees what becomes of a call whose memory runs out, or whose device goes, at any step of it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// What is to go wrong. Steps are what can fail on a device: buffers, bind groups, layouts, pipelines and submissions, counted from 0
/// from where the fault is asked for.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub enum Fault {
    /// These steps find no memory.
    OutOfMemory(Range<u64>),
    /// The device is lost just before this step.
    DeviceLost(u64),
}

#[derive(Default)]
pub(crate) struct Faults {
    /// Whether one is asked for: all that a step looks at otherwise.
    armed: AtomicBool,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    fault: Option<Fault>,
    steps: u64,
    struck: u64,
}

impl Faults {
    fn ask(&self, fault: Option<Fault>) -> u64 {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.armed.store(fault.is_some(), Ordering::Release);
        std::mem::replace(&mut *asked, Asked { fault, ..Asked::default() }).struck
    }

    /// A step begins.
    pub fn step(&self, device: &wgpu::Device) -> Result<()> {
        if self.armed.load(Ordering::Acquire) { self.strike(device) } else { Ok(()) }
    }

    #[cold]
    fn strike(&self, device: &wgpu::Device) -> Result<()> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let step = asked.steps;
        asked.steps += 1;
        match &asked.fault {
            Some(Fault::OutOfMemory(steps)) if steps.contains(&step) => {
                asked.struck += 1;
                Err(Error::OutOfMemory { reason: format!("step {step} was asked to fail") })
            }
            Some(Fault::DeviceLost(at)) if *at == step => {
                asked.struck += 1;
                device.destroy();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Gpu {
    /// For tests: asks for a fault from now on, or for no more. How often the one before struck.
    #[doc(hidden)]
    pub fn fault(&self, fault: Option<Fault>) -> u64 {
        self.0.faults.ask(fault)
    }
}
