//! Choosing among the kernels of a problem by what was measured: [`Tuning`].
//!
//! A plan stays a pure function of the problem, the profile and the kernel asked for; tuning only says which to ask for.

#[cfg(not(target_arch = "wasm32"))]
mod measure;
mod table;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::Plan;
use crate::profile::Profile;
use table::{Entry, Table};

/// How a kernel is chosen where none is asked for by name. It concerns the operators that have several: convolution, transposed and
/// deformable convolution, involution and linear.
///
/// Results are right with any of them, but kernels round differently: with the rules, the same call on the same adapter gives the same
/// bits in every process. With a measurement the choice, and with it the last bits, may differ from one process or machine to the next.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, Tuning};
/// let gpu = Gpu::builder().tuning(Tuning::Measure).build_blocking()?;
/// // After the application has run its network once:
/// gpu.save_tuning("table.json")?;
/// // What it ships takes the same kernels from there, without measuring:
/// let gpu = Gpu::builder().tuning(Tuning::File("table.json".into())).build_blocking()?;
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tuning {
    /// By the rules: a pure function of shapes, options and adapter.
    #[default]
    Rules,
    /// By measuring the candidates of a problem when it first comes up, which waits for the device for up to a second or so, and for
    /// their compilation. They run on tensors of their own; one that does not give what the `direct` kernel gives is never taken.
    /// What was found is kept in a file of the [`Cache`](crate::Cache) for this adapter, driver and version of the crate. On the web: the rules.
    Measure,
    /// By such a file, written by [`Gpu::save_tuning`]. What it does not hold goes by the rules, and so does everything on an adapter
    /// of another name.
    File(PathBuf),
}

/// An operator's checked problem, as far as tuning has to know it.
pub(crate) trait Tunable {
    type Kernel: Copy + PartialEq;
    /// What stands for no kernel by name.
    const AUTO: Self::Kernel;
    /// The kernel that the others are compared with.
    const REFERENCE: Self::Kernel;

    fn name(kernel: Self::Kernel) -> &'static str;
    /// The kernels that can take the problem, best first by rule.
    fn candidates(&self, profile: &Profile) -> Result<Vec<Self::Kernel>>;
    fn plan(&self, kernel: Self::Kernel, profile: &Profile) -> Result<Plan>;
    /// Shapes and options, readable; the same for the same problem in every process.
    fn key(&self) -> String;
    /// Names and shapes of the call's arguments.
    fn arguments(&self) -> Vec<(&'static str, Option<Vec<usize>>)>;
    /// Products that are added up in one element of the output.
    fn products(&self) -> u64;
}

/// Extents as a key has them.
pub(crate) fn extents<T: ToString>(extents: &[T]) -> String {
    extents.iter().map(T::to_string).collect::<Vec<_>>().join("x")
}

/// What a [`Gpu`] knows of measured kernels.
#[derive(Default)]
pub(crate) struct Tuner {
    measures: bool,
    /// Where measurements are kept; none of them outlives the process otherwise.
    file: Option<PathBuf>,
    table: Option<Mutex<Table>>,
    /// Problems that could not be measured, for lack of memory.
    given_up: Mutex<HashSet<String>>,
    /// Held while something is measured.
    measuring: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tuner {
    /// Reads the table that goes with the choice.
    pub fn open(tuning: Tuning, info: &wgpu::AdapterInfo, folder: Option<&Path>) -> Result<Self> {
        match tuning {
            Tuning::Measure if cfg!(not(target_arch = "wasm32")) => {
                let table = Table::of(info);
                let file = folder.map(|folder| folder.join(table.file_name()));
                // Whatever is wrong with a file that nobody asked for by name: it is measured again.
                let known =
                    file.as_deref().and_then(|file| Table::read(file).ok()).filter(|known| known.is_like(&table));
                let table = Some(Mutex::new(known.unwrap_or(table)));
                Ok(Self { measures: true, file, table, ..Self::default() })
            }
            Tuning::Rules | Tuning::Measure => Ok(Self::default()),
            Tuning::File(path) => {
                let table = Some(Table::read(&path)?).filter(|table| table.adapter == info.name).map(Mutex::new);
                Ok(Self { table, ..Self::default() })
            }
        }
    }

    /// Knows what a file holds, and the name that such a file has.
    pub fn of_text(text: &[u8], measures: bool) -> Result<(Self, String)> {
        let table = Table::parse(text, Path::new("text"))?;
        let file = table.file_name();
        Ok((Self { measures, table: Some(Mutex::new(table)), ..Self::default() }, file))
    }

    /// Writes what is known; the table of nothing where nothing is.
    fn save(&self, info: &wgpu::AdapterInfo, path: &Path) -> Result<()> {
        match &self.table {
            Some(table) => lock(table).write(path),
            None => Table::of(info).write(path),
        }
    }

    /// Adds a measurement to the table, and to the file as it is now: another process may have written to it.
    fn remember(&self, key: String, entry: Entry) {
        let Some(table) = &self.table else { return };
        let mut table = lock(table);
        table.problems.insert(key, entry);
        let Some(file) = &self.file else { return };
        if let Some(written) = Table::read(file).ok().filter(|written| written.is_like(&table)) {
            for (key, entry) in written.problems {
                table.problems.entry(key).or_insert(entry);
            }
        }
        // Where the folder cannot be written to, this process still knows.
        let _ = table.write(file);
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn measure<T: Tunable>(&self, gpu: &Gpu, problem: &T, key: &str, offered: &[T::Kernel]) -> Result<()> {
        let _measuring = lock(&self.measuring);
        // Another thread may have measured the same in the meantime.
        if self.find::<T>(key, offered).is_some() {
            return Ok(());
        }
        match measure::entry(gpu, problem, offered) {
            Ok(entry) => self.remember(key.into(), entry),
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(_) => {
                lock(&self.given_up).insert(key.into());
            }
        }
        Ok(())
    }

    /// The fastest of the offered kernels by the table; none where it does not tell.
    pub fn find<T: Tunable>(&self, key: &str, offered: &[T::Kernel]) -> Option<T::Kernel> {
        let table = lock(self.table.as_ref()?);
        let entry = table.problems.get(key)?;
        // A kernel that it does not know may be the fastest: worth a measurement, where there are any.
        let complete = offered.iter().all(|&kernel| entry.knows(T::name(kernel)));
        if self.measures && !complete {
            return None;
        }
        let time = |kernel: &T::Kernel| entry.microseconds.get(T::name(*kernel)).copied();
        let fastest = offered.iter().copied().filter(|kernel| time(kernel).is_some());
        let fastest = fastest.min_by(|a, b| time(a).unwrap_or(f64::MAX).total_cmp(&time(b).unwrap_or(f64::MAX)));
        // At least none that is known to be wrong.
        fastest.or_else(|| offered.iter().copied().find(|&kernel| !entry.wrong.contains_key(T::name(kernel))))
    }
}

/// The plan of a problem, with the kernel asked for by name or the one that tuning finds.
pub(crate) fn plan<T: Tunable>(gpu: &Gpu, problem: &T, asked: T::Kernel) -> Result<Plan> {
    let (profile, tuner) = (gpu.profile(), &gpu.0.tuner);
    if asked != T::AUTO || tuner.table.is_none() {
        return problem.plan(asked, profile);
    }
    let offered = problem.candidates(profile)?;
    if offered.len() < 2 {
        return problem.plan(asked, profile);
    }
    let key = problem.key();
    if let Some(kernel) = tuner.find::<T>(&key, &offered) {
        return problem.plan(kernel, profile);
    }
    if !tuner.measures || lock(&tuner.given_up).contains(&key) {
        return problem.plan(asked, profile);
    }
    #[cfg(not(target_arch = "wasm32"))]
    tuner.measure(gpu, problem, &key, &offered)?;
    problem.plan(tuner.find::<T>(&key, &offered).unwrap_or(asked), profile)
}

impl Gpu {
    /// Writes what is known of measured kernels into a file for [`Tuning::File`].
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be written.
    pub fn save_tuning(&self, path: impl AsRef<Path>) -> Result<()> {
        self.0.tuner.save(&self.adapter_info(), path.as_ref())
    }
}

#[cfg(test)]
mod tests;
