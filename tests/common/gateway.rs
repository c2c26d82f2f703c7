//! The real process, `quietus dev` or `quietus serve`, on a folder: started, waited for, spoken to, stopped or killed.

// Each test binary that includes this uses a part of it.
#![allow(dead_code)]

use quietus::cli::{args::Transport, connect::Link};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Far above what a start takes, also on a machine that builds at the same time.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running gateway. Dropping it kills the process.
pub struct Gateway {
    child: Child,
    data: PathBuf,
    log: PathBuf,
    /// Its port, TCP and UDP.
    pub port: u16,
}

impl Gateway {
    /// Starts on a folder, and waits until it serves. The log goes beside the folder and is appended to.
    pub fn start(data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
        command.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        Self::spawn(command, data)
    }

    /// Starts `quietus serve` with a configuration file; `data` holds `client/`, as `DevFiles` makes it.
    pub fn serve(config: &Path, data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
        command.args(["serve", "--config"]).arg(config);
        Self::spawn(command, data)
    }

    /// Starts a command that serves, and waits until it does.
    pub fn spawn(command: Command, data: &Path) -> Self {
        Self::try_spawn(command, data).unwrap_or_else(|log| panic!("no ready line; the log says: {log}"))
    }

    /// The same; gives the log where it ends before it serves.
    pub fn try_spawn(mut command: Command, data: &Path) -> Result<Self, String> {
        let log = data.with_extension("log");
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn().expect("the process starts");
        let stdout = child.stdout.take().expect("piped");
        let (lines, first) = mpsc::channel();
        // Reads on after the first line, so that the process never writes to a closed pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let Ok(ready) = first.recv_timeout(READY_WITHIN) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(std::fs::read_to_string(&log).unwrap_or_default());
        };
        let port = ready
            .strip_prefix("ready https://")
            .and_then(|rest| rest.split(' ').next()?.rsplit(':').next()?.parse().ok())
            .unwrap_or_else(|| panic!("not a ready line: {ready}"));
        Ok(Self { child, data: data.to_owned(), log, port })
    }

    /// The folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it logged so far, all starts together.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A file of `DIR/client`.
    pub fn client_file(&self, name: &str) -> PathBuf {
        self.data.join("client").join(name)
    }

    /// A channel as one of the dev identities: `developer`, `switch`, `admin`, `customer`, `staff`, `auditor`,
    /// `operator`.
    pub fn link(&self, role: &str, transport: Transport) -> Link {
        Link::open(&self.client_file(&format!("{role}.toml")), Some(transport)).expect("a profile")
    }

    /// Runs a client command as the developer, over HTTP/2 unless the arguments say otherwise.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the process starts")
    }

    /// A client command that has not been started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quietus"));
        command
            .env_remove("QUIETUS_TRANSPORT")
            .env("QUIETUS_PROFILE", self.client_file("profile.toml"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Asks it to stop, and waits until it did.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().expect("it ends")
    }

    /// Waits until it ends by itself, so long at most; then kills it. Says whether it had ended.
    pub fn end_within(mut self, time: Duration) -> bool {
        let began = std::time::Instant::now();
        while began.elapsed() < time {
            if self.child.try_wait().expect("it is ours").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        false
    }

    /// Kills it where it stands.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Stopped or killed already, where these fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
