//! Calls of cargo on this workspace.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The workspace that these tasks belong to.
pub fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies outside of a workspace")
}

pub struct Cargo {
    program: OsString,
    manifest: PathBuf,
    runtime: Option<RuntimeDir>,
}

impl Cargo {
    pub fn new() -> Result<Self> {
        Ok(Self {
            program: env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            manifest: root()?.join("Cargo.toml"),
            runtime: RuntimeDir::where_missing()?,
        })
    }

    /// The same for a copy of the workspace.
    pub fn within(self, root: &Path) -> Self {
        Self { manifest: root.join("Cargo.toml"), ..self }
    }

    /// Runs `cargo <command> <options> -- <args>` and tells whether it succeeded. The working directory stays the
    /// caller's, so that paths among `args` mean what they say.
    pub fn run(&self, command: &str, options: &[&str], args: &[OsString], env: &[(&str, &str)]) -> Result<bool> {
        let (mut cargo, line) = self.command(command, options, args, env);
        println!("running: {line}");
        let status = cargo.status().with_context(|| format!("cannot start {}", self.program.display()))?;
        Ok(status.success())
    }

    /// Builds all examples and tells in which folder they are.
    pub fn build_examples(&self) -> Result<PathBuf> {
        // The whole workspace: with fewer packages cargo would choose fewer features and build the dependencies again.
        if !self.run("build", &["--workspace", "--examples"], &[], &[])? {
            bail!("the examples do not build");
        }
        let xtask = env::current_exe().context("asking where this program is")?;
        Ok(xtask.parent().context("this program lies in no folder")?.join("examples"))
    }

    /// Runs a program that cargo has built, in the workspace's folder and with what graphics drivers need, and tells whether it
    /// succeeded.
    pub fn run_program(&self, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<bool> {
        let mut command = Command::new(program);
        command.current_dir(root()?);
        self.prepare(&mut command).args(args).envs(env.iter().copied());
        let env = env.iter().map(|(name, value)| format!("{name}={value} ")).collect::<String>();
        println!("running: {env}{} {}", program.display(), args.join(" "));
        let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(status.success())
    }

    /// Such a program that may have so many KiB of virtual memory, where the system has a way to say so.
    pub fn limited_program(&self, program: &Path, most_memory: u64) -> Command {
        let mut command = if cfg!(target_os = "linux") {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("ulimit -v {most_memory}; exec \"$0\" \"$@\"")).arg(program);
            shell
        } else {
            Command::new(program)
        };
        self.prepare(&mut command);
        command
    }

    /// What cargo prints on its standard output; what is for people goes by as it comes.
    pub fn messages(&self, command: &str, options: &[&str]) -> Result<String> {
        let (mut cargo, line) = self.command(command, options, &[], &[]);
        println!("running: {line}");
        let output = cargo.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot start {}", self.program.display()))?;
        String::from_utf8(output.stdout).context("reading what cargo prints")
    }

    fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(runtime) = &self.runtime {
            command.env(RuntimeDir::VARIABLE, &runtime.0);
        }
        command
    }

    /// [`Cargo::run`] that keeps all that is printed, the command itself first, for the caller to show in one piece.
    pub fn run_quietly(
        &self,
        command: &str,
        options: &[&str],
        args: &[OsString],
        env: &[(&str, &str)],
    ) -> Result<(bool, String)> {
        let (mut cargo, line) = self.command(command, options, args, env);
        let output = cargo.output().with_context(|| format!("cannot start {}", self.program.display()))?;
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        Ok((output.status.success(), format!("running: {line}\n{err}{out}")))
    }

    /// The command, and the same as a line that a shell would take.
    fn command(&self, command: &str, options: &[&str], args: &[OsString], env: &[(&str, &str)]) -> (Command, String) {
        let mut cargo = Command::new(&self.program);
        cargo.arg(command).arg("--manifest-path").arg(&self.manifest).args(options);
        if !args.is_empty() {
            cargo.arg("--").args(args);
        }
        self.prepare(&mut cargo).envs(env.iter().copied());

        let mut line: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        line.extend(["cargo", command].iter().chain(options).map(|word| word.to_string()));
        if !args.is_empty() {
            line.push("--".into());
            line.extend(args.iter().map(|arg| arg.to_string_lossy().into_owned()));
        }
        (cargo, line.join(" "))
    }
}

/// A directory for `XDG_RUNTIME_DIR`, removed at the end: without one, graphics drivers on Linux print a warning each
/// time a process opens them.
struct RuntimeDir(PathBuf);

impl RuntimeDir {
    const VARIABLE: &str = "XDG_RUNTIME_DIR";

    fn where_missing() -> Result<Option<Self>> {
        if !cfg!(target_os = "linux") || env::var_os(Self::VARIABLE).is_some_and(|dir| dir != *OsStr::new("")) {
            return Ok(None);
        }
        let path = env::temp_dir().join(format!("wgconv-runtime-{}", process::id()));
        create_private(&path).with_context(|| format!("cannot make the directory {}", path.display()))?;
        Ok(Some(Self(path)))
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // A leftover directory in the temporary ones harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Readable by its owner only, as drivers and the XDG specification want it.
fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    // A directory that is there already may be somebody else's.
    builder.recursive(false);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
