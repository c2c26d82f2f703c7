//! `quietus-forensics`: the command line of [`quietus::forensics`]. Not installed on servers.
//!
//! Exit status: 0 it ran, whatever it found · 1 a file could not be read, or no key survives to be exported · 2 wrong usage.

use clap::Parser;
use quietus::forensics::{Options, investigate, report};
use std::{
    io::{self, BufWriter, Write as _},
    path::PathBuf,
    process::ExitCode,
};

/// Plays the attacker: what can still be read, given copies of key stores, root slots and objects from any time.
///
/// Every file is carved as raw bytes; no database is opened and nothing is changed.
#[derive(Parser)]
#[command(name = "quietus-forensics", version)]
struct Arguments {
    /// Folders of key stores, journals and backups, from any time.
    #[arg(long, num_args = 1.., required = true, value_name = "DIR")]
    keys: Vec<PathBuf>,
    /// Root slots.
    #[arg(long, num_args = 1.., value_name = "DIR")]
    slot: Vec<PathBuf>,
    /// Folders of objects.
    #[arg(long, num_args = 1.., value_name = "DIR")]
    objects: Vec<PathBuf>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Also say of each sealed value whether it can be read.
    #[arg(long)]
    values: bool,
    /// Strings to look for in everything that opens: `@FILE` with one a line, `-` for standard input, or one string.
    #[arg(long, value_name = "@FILE")]
    find: Vec<String>,
    /// Print the audio secret of a recording or object that survives, for a reader that is not ours.
    #[arg(long, value_name = "RECORDING|OBJECT")]
    export_key: Vec<String>,
    /// Try every secret on everything that is still sealed, not only what ids lead to. Slow.
    #[arg(long)]
    exhaustive: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(status) => status,
        // Whoever reads our output has heard enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("quietus-forensics: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut find = Vec::new();
    for given in &arguments.find {
        let lines = match given.strip_prefix('@') {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("{path}: {error}"))?),
            None if given == "-" => Some(io::read_to_string(io::stdin())?),
            None => None,
        };
        match lines {
            Some(lines) => find.extend(lines.lines().map(str::to_owned)),
            None => find.push(given.clone()),
        }
    }
    let options = Options {
        keys: arguments.keys,
        slots: arguments.slot,
        objects: arguments.objects,
        find,
        exhaustive: arguments.exhaustive,
    };
    let findings = investigate(&options)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if arguments.export_key.is_empty() {
        if arguments.json {
            report::json_lines(&findings, arguments.values, &mut out)?;
        } else {
            report::text(&findings, arguments.values, &mut out)?;
        }
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut status = ExitCode::SUCCESS;
    for wanted in &arguments.export_key {
        let keys = report::export(&findings, wanted);
        if keys.is_empty() {
            eprintln!("quietus-forensics: no audio secret of {wanted} can be read");
            status = ExitCode::FAILURE;
        }
        for key in keys {
            match key["audio_secret"].as_str() {
                Some(secret) if !arguments.json => writeln!(out, "{secret}")?,
                _ => writeln!(out, "{key}")?,
            }
        }
    }
    out.flush()?;
    Ok(status)
}
