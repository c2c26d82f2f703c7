//! `quietus receipt`: verified offline, with the public key and nothing else; shown and listed from the gateway.

use super::{
    audit::read_key,
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::{
    audit::{
        receipt::{Opening, State},
        verify::{self, MAX_FILE},
    },
    proto::v1::{
        GetReceiptRequest, ListReceiptsRequest, Receipt, ReceiptState, erasure_service_client::ErasureServiceClient,
    },
};
use clap::Subcommand;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::{Value, json};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

/// `quietus receipt …`
#[derive(Subcommand)]
pub enum ReceiptCommand {
    /// Verify a receipt file, offline.
    Verify {
        /// The file.
        file: PathBuf,
        /// The public key of the log, or a file that holds it.
        #[arg(long, value_name = "PUBKEY")]
        key: String,
        /// What opens the commitment: 64 hexadecimal digits, or a file that holds them.
        #[arg(long, value_name = "HEX", requires = "scope")]
        opening: Option<String>,
        /// What the receipt is about, as docs/audit.md writes it: `recording ID`, `subscriber TENANT/NAME`, `tenant NAME`.
        #[arg(long, value_name = "TEXT", requires = "opening")]
        scope: Option<String>,
    },
    /// Show a receipt, with a proof to the present head of the log.
    Show {
        /// Its id.
        id: String,
        /// Where to write the file; otherwise standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List receipts. Ends with status 7 when ciphertext is left that should be gone.
    List {
        /// Of this tenant's erasures; otherwise all.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those whose ciphertext is not gone yet.
        #[arg(long)]
        open: bool,
        /// Only those behind this id.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// How many.
        #[arg(short = 'n', long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
}

/// Runs the command. `link` is asked for by those that need the gateway.
pub async fn run(
    link: impl FnOnce() -> Result<Link, Failure>,
    command: ReceiptCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        ReceiptCommand::Verify { file, key, opening, scope } => {
            let about = match (opening, scope) {
                (Some(opening), Some(scope)) => Some((read_opening(&opening)?, names::resolve(&scope)?)),
                _ => None,
            };
            verify_file(&file, &key, about, output)
        }
        ReceiptCommand::Show { id, output: file } => {
            let receipt = ErasureServiceClient::new(link()?)
                .get_receipt(GetReceiptRequest { id: names::resolve(&id)? })
                .await?
                .into_inner();
            show(&receipt, file.as_deref(), output)
        }
        ReceiptCommand::List { tenant, open, after, limit } => {
            let tenant = tenant.map(|name| names::resolve(&name)).transpose()?.unwrap_or_default();
            let after = after.map(|id| names::resolve(&id)).transpose()?.unwrap_or_default();
            let request = ListReceiptsRequest { tenant, open_only: open, after, limit };
            let receipts = ErasureServiceClient::new(link()?).list_receipts(request).await?.into_inner().receipts;
            list(&receipts, output)
        }
    }
}

fn verify_file(path: &Path, key: &str, about: Option<(Opening, String)>, output: Output) -> Result<(), Failure> {
    let key = read_key(Some(key), Path::new("."))?;
    let text = read(path)?;
    let opened = about.as_ref().map(|(opening, scope)| (opening, scope.as_str()));
    let verified = verify::verify(&text, &key, opened)
        .map_err(|refused| Failure::failed(refused.to_string()).about(path.display()))?;
    let said = &verified.statement;
    let state = match said.state {
        State::Sealed => "sealed, not destroyed yet",
        State::Destroyed => "destroyed",
        State::DestroyedBy(_) => "destroyed by",
        State::NothingLeft => "nothing was left",
        State::Removed => "ciphertext removed",
    };
    let json = json!({
        "receipt": said.id.to_string(),
        "gateway": said.gateway,
        "about": said.about.word(),
        "parts": said.parts.word(),
        "state": state,
        "stated": moment(said.stated.0),
        "generation_from": said.generations.0,
        "generation_to": said.generations.1,
        "log_index": verified.index,
        "log_size": verified.checkpoint.size,
        "scope_opened": about.is_some(),
    });
    output.one(json, || {
        let opened = match &about {
            Some((_, scope)) => format!("it is about: {scope}"),
            None => "what it is about was not opened (--opening, --scope)".to_owned(),
        };
        format!(
            "the receipt holds: {} ({}), {state}; root generations {} to {}; entry {} of {} in the log of {}; {opened}",
            said.about.word(),
            said.parts.word(),
            said.generations.0,
            said.generations.1,
            verified.index,
            verified.checkpoint.size,
            said.gateway,
        )
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_string(&mut text))
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}

/// 64 hexadecimal digits, or a file that holds them.
fn read_opening(text: &str) -> Result<Opening, Failure> {
    let digits = |text: &str| HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok()?.try_into().ok();
    let found = digits(text).or_else(|| digits(&std::fs::read_to_string(text).ok()?));
    found.ok_or_else(|| Failure::usage("--opening: 64 hexadecimal digits, or a file that holds them"))
}

fn show(receipt: &Receipt, file: Option<&Path>, output: Output) -> Result<(), Failure> {
    if receipt.text.is_empty() {
        let why = "the erasure is durable and its receipt is not stated yet, or not in the backup yet; ask again";
        return Err(Failure::try_again(why));
    }
    if let Some(path) = file {
        write(path, &receipt.text)?;
    }
    let mut json = as_json(receipt);
    json["text"] = receipt.text.clone().into();
    output.one(json, || match file {
        Some(path) => format!("receipt {} written to {}", receipt.id, path.display()),
        None => receipt.text.trim_end().to_owned(),
    })?;
    match receipt.state() {
        ReceiptState::Sealed => {
            Err(Failure::try_again("it states that the erasure is sealed, and not destroyed yet; ask again for that"))
        }
        _ => Ok(()),
    }
}

/// Writes a file that only its owner reads: with an opening, it says what was erased.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

fn list(receipts: &[Receipt], output: Output) -> Result<(), Failure> {
    if output.json {
        receipts.iter().try_for_each(|receipt| output.one(as_json(receipt), String::new))?;
    } else {
        let rows: Vec<_> = receipts
            .iter()
            .map(|receipt| {
                vec![
                    receipt.id.clone(),
                    state(receipt).to_owned(),
                    moment(receipt.requested_ms).unwrap_or_default(),
                    moment(receipt.gone_by_ms).unwrap_or_default(),
                    receipt.swept_by.clone(),
                ]
            })
            .collect();
        output.table(&["RECEIPT", "STATE", "REQUESTED", "CIPHERTEXT GONE BY", "SWEPT BY"], &rows)?;
    }
    match receipts.iter().filter(|receipt| receipt.overdue).count() {
        0 => Ok(()),
        overdue => Err(Failure::overdue(format!("the ciphertext of {overdue} erasures should be gone and is not"))),
    }
}

fn state(receipt: &Receipt) -> &'static str {
    match receipt.state() {
        ReceiptState::Sealed => "sealed",
        ReceiptState::Stated if receipt.overdue => "overdue",
        ReceiptState::Stated => "destroyed",
        ReceiptState::Swept => "swept",
        ReceiptState::Unspecified => "other",
    }
}

fn as_json(receipt: &Receipt) -> Value {
    let present = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "receipt": receipt.id,
        "state": state(receipt),
        "requested": moment(receipt.requested_ms),
        "gone_by": moment(receipt.gone_by_ms),
        "overdue": receipt.overdue,
        "swept_by": present(&receipt.swept_by),
        "follows": present(&receipt.follows),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_is_read_from_digits_or_from_a_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("opening");
        let digits = "0A".repeat(32);
        write(&path, &format!("{digits}\n")).expect("written");
        assert_eq!(read_opening(&digits).ok(), Some([10; 32]));
        assert_eq!(read_opening(&path.display().to_string()).ok(), Some([10; 32]));
        assert_eq!(read_opening("0A").map_err(|failure| failure.status), Err(2));
    }
}
