//! The table of measurements, and its file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cache;
use crate::error::{Error, Result};

/// What was measured on one adapter with one driver and version of the crate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub adapter: String,
    pub driver: String,
    pub driver_info: String,
    /// The crate's version.
    pub wgconv: String,
    /// By shapes and options.
    pub problems: BTreeMap<String, Entry>,
}

/// What was measured of one problem, by the kernels' names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The time of a call.
    pub microseconds: BTreeMap<String, f64>,
    /// Why it must not be taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wrong: BTreeMap<String, String>,
}

impl Entry {
    pub fn knows(&self, kernel: &str) -> bool {
        self.microseconds.contains_key(kernel) || self.wrong.contains_key(kernel)
    }
}

impl Table {
    /// An empty table for an adapter.
    pub fn of(info: &wgpu::AdapterInfo) -> Self {
        Self {
            adapter: info.name.clone(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            wgconv: env!("CARGO_PKG_VERSION").into(),
            problems: BTreeMap::new(),
        }
    }

    /// Its own for each adapter, driver and version.
    pub fn file_name(&self) -> String {
        cache::file_name(&["tuning", &self.adapter, &self.driver, &self.driver_info, &self.wgconv], "json")
    }

    /// Whether both are of the same adapter, driver and version.
    pub fn is_like(&self, other: &Self) -> bool {
        let key = |table: &Self| {
            [&table.adapter, &table.driver, &table.driver_info, &table.wgconv].map(|text| text.to_string())
        };
        key(self) == key(other)
    }

    pub fn read(path: &Path) -> Result<Self> {
        let failed = |reason: String| Error::File { path: path.to_path_buf(), reason };
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&text, path)
    }

    /// The same of what such a file holds.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let failed = |reason: String| Error::File { path: path.to_path_buf(), reason };
        serde_json::from_slice(text).map_err(|error| failed(format!("not a table of measurements: {error}")))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |reason: String| Error::File { path: path.to_path_buf(), reason };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.to_string()))?;
        cache::write(path, format!("{text}\n").as_bytes())
    }
}
