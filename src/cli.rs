//! The command line: arguments in, one command run, an exit status out.
//!
//! - [`args`]: what may be typed. Plain data; nothing is opened while parsing.
//! - [`connect`]: the profile, and a channel over HTTP/2 or HTTP/3.
//! - [`failure`]: a failure as one line and an exit status.
//! - [`names`]: names and numbers from `@FILE` and `-`, so that they need not stand in process lists.
//! - [`output`]: lines for people, or JSON.
//! - [`pauses`]: seconds that a recording leaves out.
//! - [`record`], [`play`], [`recordings`], [`erase`], [`tenant`], [`permission`], [`inbox`], [`apikey`], [`switch`],
//!   [`audit`], [`receipt`], [`status`], [`slot`]: a file per family of
//!   commands.
//!
//! Client commands speak to the gateway over the wire only. `dev`, `serve`, `config`, [`slot`], `backup` and `restore` hand
//! over to `server`.

pub mod apikey;
pub mod args;
pub mod audit;
pub mod connect;
pub mod erase;
pub mod failure;
pub mod hold;
pub mod inbox;
pub mod media;
pub mod names;
pub mod output;
pub mod pauses;
pub mod permission;
pub mod play;
pub mod policy;
pub mod receipt;
pub mod record;
pub mod recordings;
pub mod slot;
pub mod stats;
pub mod status;
pub mod subscriber;
pub mod switch;
pub mod tenant;

use crate::{domain::reason::Reason, server};
use args::{Arguments, BackupCommand, Command, ConfigCommand};
use clap::Parser as _;
use connect::Link;
use failure::Failure;
use output::Output;
use std::{path::Path, process::ExitCode};

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(Failure::failed(format!("cannot start: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.status)
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = Output { json: arguments.json };
    let link = || Link::open(&arguments.profile, arguments.transport);
    match arguments.command {
        Command::Dev { data, listen, clock } => {
            start_log();
            Ok(server::dev::dev(&data, listen, clock.as_deref()).await?)
        }
        Command::Serve { config } => {
            start_log();
            Ok(server::run::serve(read_config(&config)?).await?)
        }
        Command::Backup { command } => backup(command, output).await,
        Command::Restore { config } => {
            let done = server::backup::restore(read_config(&config)?).await.map_err(refused)?;
            read_to_the_end("restored", &done, output)
        }
        Command::Config { command: ConfigCommand::Check { file } } => {
            read_config(&file)?;
            output.one(serde_json::json!({ "file": file, "good": true }), || format!("{}: good", file.display()))
        }
        Command::Slot { command } => slot::run(read_config(command.config())?, &command, output).await,
        Command::Tenant { command } => tenant::run(link()?, command, output).await,
        Command::Policy { command } => policy::run(link()?, command, output).await,
        Command::Record(what) => record::run(link()?, *what, output).await,
        Command::List(what) => recordings::list(link()?, what, output).await,
        Command::Show { id, ticket } => recordings::show(link()?, &id, ticket, output).await,
        Command::Play(what) => play::run(link()?, what, output).await,
        Command::Permission { command } => permission::run(link()?, command, output).await,
        Command::Inbox { command } => inbox::run(link()?, command, output).await,
        Command::Subscriber { command } => subscriber::run(link()?, command, output).await,
        Command::Recording { command } => subscriber::recording(link()?, command, output).await,
        Command::Hold { command } => hold::run(link()?, command, output).await,
        Command::Stats { command } => stats::run(link()?, command, output).await,
        Command::Erase { dry_run, command } => erase::run(link()?, command, dry_run, output).await,
        Command::Apikey { command } => apikey::run(link()?, command, output).await,
        Command::Switch { command } => switch::run(link()?, command, output).await,
        Command::Audit { command } => audit::run(link()?, command, &arguments.profile, output).await,
        Command::Receipt { command } => receipt::run(link, command, output).await,
        Command::Status => status::run(link()?, output).await,
    }
}

async fn backup(command: BackupCommand, output: Output) -> Result<(), Failure> {
    match command {
        BackupCommand::Create { config } => {
            let number = server::backup::create(read_config(&config)?).await.map_err(refused)?;
            output.one(serde_json::json!({ "commands": number }), || format!("a base with {number} commands is made"))
        }
        BackupCommand::List { config } => {
            for found in server::backup::list(read_config(&config)?).await.map_err(refused)? {
                let (way, store) = (&found.way, found.store.to_string());
                let (base, mark) = (&way.base, &way.mark);
                let json = serde_json::json!({
                    "store": store,
                    "commands": mark.number,
                    "root": mark.root.to_string(),
                    "base_commands": base.mark.number,
                    "base_ms": base.taken.0,
                    "base_parts": way.parts,
                    "deltas": way.deltas.len(),
                    "objects": found.objects,
                });
                output.one(json, || {
                    format!(
                        "{store}  {} commands, opens with root {}…: a base with {} in {} parts, {} deltas; {} objects in all",
                        mark.number,
                        mark.root,
                        base.mark.number,
                        way.parts,
                        way.deltas.len(),
                        found.objects
                    )
                })?;
            }
            Ok(())
        }
        BackupCommand::Verify { config } => {
            let done = server::backup::verify(read_config(&config)?).await.map_err(refused)?;
            read_to_the_end("whole", &done, output)
        }
    }
}

fn read_to_the_end(what: &str, done: &server::backup::Outcome, output: Output) -> Result<(), Failure> {
    let (read, passed_over) = (done.reached.read, &done.reached.passed_over);
    let json = serde_json::json!({
        "outcome": what,
        "commands": read.number,
        "objects": read.objects,
        "bytes": read.bytes,
        "seconds": done.took.as_secs_f64(),
        "passed_over": passed_over.as_ref().map(|newer| serde_json::json!({
            "states": newer.states,
            "commands": newer.number,
            "root": newer.root.to_string(),
            "written_ms": newer.taken.0,
            "slots_absent": newer.absent,
        })),
    });
    output.one(json, || {
        let seconds = done.took.as_secs_f64();
        let text = format!(
            "{what}: {} commands from {} objects, {} bytes, in {seconds:.1} s",
            read.number, read.objects, read.bytes
        );
        passed_over.iter().fold(text, |text, newer| format!("{text}\n{newer}"))
    })
}

/// A backup that was not made, read or restored, as an exit status.
fn refused(error: server::backup::Error) -> Failure {
    let kind = error.kind();
    let message = match error {
        // Its message tells its cause.
        server::backup::Error::Backup(error) => error.to_string(),
        error => format!("{:#}", anyhow::Error::from(error)),
    };
    match kind {
        server::backup::Kind::Usage => Failure::usage(message),
        server::backup::Kind::Away => Failure::try_again(message),
        server::backup::Kind::Unknown => Failure { status: Reason::Unknown.exit_status(), message },
        server::backup::Kind::Failed => Failure::failed(message),
    }
}

fn start_log() {
    server::process::log(std::env::var("QUIETUS_LOG").ok().as_deref());
    server::process::harden();
}

fn read_config(path: &Path) -> Result<server::config::Config, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    server::config::Config::parse(&text, |name| std::env::var(name).ok())
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
