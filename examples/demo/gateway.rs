//! The gateway as a process, and the client's commands.
//!
//! The process is killed when it goes out of scope, so that a demo that fails leaves none behind.

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Exit statuses of the client that are answers.
pub const FAILED: i32 = 1;
/// May not.
pub const NOT_PERMITTED: i32 = 3;
/// Its key is destroyed.
pub const ERASED: i32 = 4;
/// Never issued here, or a name that is gone.
pub const UNKNOWN: i32 = 5;

/// How often a state is asked for that is waited for.
const POLL: Duration = Duration::from_millis(100);
/// What takes longer than this has gone wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program that was built beside this one.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    // …/debug/examples/demo stands below …/debug/quietus.
    let folder = own.parent().and_then(Path::parent).context("this program lies nowhere")?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is not built; run `make demo`", path.display());
    Ok(path)
}

/// A running `quietus dev`.
pub struct Gateway {
    process: Child,
    // Kept open: the gateway may have more to say.
    _said: BufReader<ChildStdout>,
    client: Client,
}

impl Gateway {
    /// Starts one on a folder, and waits until it serves. Its log goes to a file.
    pub fn start(data: &Path, log: &Path) -> anyhow::Result<Self> {
        let log_file = File::options().create(true).append(true).open(log)?;
        let program = program("quietus")?;
        let mut process = Command::new(&program)
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut said = BufReader::new(process.stdout.take().context("standard output is piped")?);
        let client = Client { program, profile: data.join("client/profile.toml") };
        let mut line = String::new();
        // It ends, and with it its output, when it cannot start.
        let read = said.read_line(&mut line);
        let gateway = Self { process, _said: said, client };
        read?;
        ensure!(line.starts_with("ready "), "the gateway did not start; see {}", log.display());
        Ok(gateway)
    }

    /// For commands.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Stops it as an init system would, and waits until it has drained.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "the gateway did not stop cleanly: {status}");
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("the gateway did not stop")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a command came to.
pub struct Answer {
    /// Exit status.
    pub status: i32,
    /// Standard output, line by line.
    pub lines: Vec<Value>,
    /// Standard error.
    pub complaint: String,
    /// From start to exit.
    pub took: Duration,
}

impl Answer {
    /// The one line.
    pub fn one(&self) -> &Value {
        self.lines.first().unwrap_or(&Value::Null)
    }
}

/// The client's commands.
#[derive(Clone)]
pub struct Client {
    program: PathBuf,
    profile: PathBuf,
}

impl Client {
    /// The same commands as another of the identities that `quietus dev` makes.
    pub fn as_who(&self, who: &str) -> Self {
        Self { profile: self.profile.with_file_name(format!("{who}.toml")), ..self.clone() }
    }

    /// Where the public key of the gateway's receipts lies.
    pub fn verifier_key(&self) -> PathBuf {
        self.profile.with_file_name("audit.vkey")
    }

    /// A command with `--json`, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--json").arg("--profile").arg(&self.profile).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever that is.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        let started = Instant::now();
        let output = self.command(arguments).output()?;
        let took = started.elapsed();
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(Answer {
            status: output.status.code().unwrap_or(-1),
            lines: said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            complaint: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            took,
        })
    }

    /// Runs a command that has to succeed.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        let answer = self.ask(arguments)?;
        let command = arguments.first().copied().unwrap_or_default();
        ensure!(answer.status == 0, "`quietus {command}` ended with {}: {}", answer.status, answer.complaint);
        Ok(answer)
    }

    /// A number of `quietus status`.
    pub fn status(&self, name: &str) -> anyhow::Result<u64> {
        let answer = self.run(&["status"])?;
        answer.one()[name].as_u64().with_context(|| format!("`quietus status` does not say {name}"))
    }

    /// Waits until a number of `quietus status` is as it should be, and returns how long that took.
    pub fn wait_for(&self, name: &str, good: impl Fn(u64) -> bool) -> anyhow::Result<Duration> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if good(self.status(name)?) {
                return Ok(started.elapsed());
            }
            thread::sleep(POLL);
        }
        bail!("{name} did not come to what it should be in {} s", PATIENCE.as_secs())
    }
}
