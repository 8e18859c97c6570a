//! The least time that a layer could take on an adapter (Williams, Waterman and Patterson 2009).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::common::{Error, Result};

#[derive(Deserialize)]
struct Peak {
    unit: String,
    median: f64,
}

#[derive(Deserialize)]
struct Report {
    peaks: Vec<Peak>,
}

/// What an adapter does at best.
pub struct Peaks {
    gflops: f64,
    gb_per_s: f64,
}

/// The least time of a layer, and whether its operations or its bytes take it.
#[derive(Serialize)]
pub struct Floor {
    pub floor_ms: f64,
    pub bound_by: &'static str,
}

impl Peaks {
    /// The largest medians of a file that the example `peaks` wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        let refuse = |reason: String| Error::Failed(format!("{}: {reason}", path.display()));
        let report: Report = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let most = |unit: &str| {
            let medians = report.peaks.iter().filter(|peak| peak.unit == unit).map(|peak| peak.median);
            medians.reduce(f64::max).filter(|&most| most > 0.0).ok_or_else(|| refuse(format!("no peak in {unit}")))
        };
        Ok(Self { gflops: most("GFLOP/s")?, gb_per_s: most("GB/s")? })
    }

    pub fn floor(&self, flops: f64, bytes: f64) -> Floor {
        let (compute, memory) = (flops / self.gflops / 1e6, bytes / self.gb_per_s / 1e6);
        Floor { floor_ms: compute.max(memory), bound_by: if compute >= memory { "operations" } else { "bytes" } }
    }
}
