//! Every shader through a browser's WGSL compiler, which checks that barriers and subgroup operations are in uniform control flow; the
//! compiler that the library uses itself does not.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo::Cargo, install};

/// Names of the program, by distribution.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
/// The test of the library that writes the shaders down, and the variable that tells it where.
const WRITER: [&str; 3] = ["--ignored", "--exact", "instances::write_for_a_browser"];
const FOLDER_VARIABLE: &str = "WGCONV_SHADERS_OUT";
/// The browser says something at least so often.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where on the search path Chromium is.
pub fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    PROGRAMS.iter().flat_map(|name| env::split_paths(&path).map(move |folder| folder.join(name))).find(|p| p.is_file())
}

/// Compiles every instance of every shader in headless Chromium; an error where it has one to say of any.
pub fn compile_all() -> Result<()> {
    let chromium = match find() {
        Some(program) => program,
        None => {
            install::chromium()?;
            find().context("Chromium was installed, and is not on the search path")?
        }
    };
    let cargo = Cargo::new()?;
    let folder = env::temp_dir().join(format!("wgconv-browser-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the directory {}", folder.display()))?;
    let result = write(&cargo, &folder).and_then(|()| run(&chromium, &folder));
    // A leftover directory in the temporary ones harms nobody.
    let _ = fs::remove_dir_all(&folder);
    result
}

fn write(cargo: &Cargo, folder: &Path) -> Result<()> {
    let out = folder.to_str().context("the directory for temporary files has a name that is not UTF-8")?;
    let args = WRITER.map(Into::into);
    // The whole workspace: with fewer packages cargo would choose fewer features and build the dependencies again.
    ensure!(
        cargo.run("test", &["--workspace", "--lib"], &args, &[(FOLDER_VARIABLE, out)])?,
        "the shaders could not be written down"
    );
    fs::write(folder.join("index.html"), include_str!("browser.html")).context("writing the page")
}

/// The browser, ended with this.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(chromium: &Path, folder: &Path) -> Result<()> {
    let page = format!("file://{}", folder.join("index.html").display());
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let mut command = Command::new(chromium);
    // Without a sandbox, since root has none; the page is our own.
    command.args(["--headless=new", "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]);
    command.args(["--enable-logging=stderr", &profile, &page]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    println!("running: {} {page}", chromium.display());
    let mut browser = Browser(command.spawn().with_context(|| format!("cannot start {}", chromium.display()))?);
    let stderr = browser.0.stderr.take().context("the browser's messages")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    let mut errors = 0;
    loop {
        let line = receive.recv_timeout(PATIENCE).context("the browser said nothing more")?;
        match said(&line) {
            Some(("done", count)) if errors == 0 => {
                println!("shaders that the browser compiles: {count}, all without an error");
                return Ok(());
            }
            Some(("done", count)) => bail!("the browser has {errors} errors in {count} shaders"),
            Some(("failed", text)) => bail!("in the browser: {text}"),
            Some((word, text)) => {
                errors += usize::from(word == "error");
                println!("{word}: {text}");
            }
            None => {}
        }
    }
}

/// Word and text of a line of the page's, among the others that the browser writes.
fn said(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("\"wgconv ")?;
    rest.rsplit_once("\", source: ")?.0.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::said;

    #[test]
    fn lines_of_the_page() {
        let line =
            r#"[7:7:1123/1.2:INFO:CONSOLE(9)] "wgconv error: a.wgsl 1:2: "x": no", source: file:///tmp/index.html (9)"#;
        assert_eq!(said(line), Some(("error", "a.wgsl 1:2: \"x\": no")));
        assert_eq!(said("[7:7:ERROR:gpu.cc(1)] something of its own"), None);
    }
}
