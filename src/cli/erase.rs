//! `quietus erase`: the answer comes after the previous root has been destroyed, and with a receipt.
//!
//! The opening of the receipt's commitment is drawn here, so that nobody else ever has it. It goes into `FILE.opening` beside
//! the receipt, or onto standard output: whoever loses it cannot show any more what the receipt is about.
//!
//! What is parked has no receipt yet, and runs when nobody is waiting for an answer. So the id that its receipt will have,
//! and what will open it, are given at once, with status 6; `receipt show` fetches it afterwards. Where somebody asked for the
//! same before, their opening counts, and it is that one which is given.

use super::{
    args::{EraseCommand, Future, Part},
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
    receipt,
};
use crate::{
    crypto,
    proto::rpc,
    proto::v1::{
        self, EraseRecording, EraseRequest, EraseSubscriber, EraseTenant, Outcome, Standing, erase_request::Scope,
        erasure_service_client::ErasureServiceClient,
    },
};
use data_encoding::HEXLOWER;
use std::path::{Path, PathBuf};

/// Runs the command.
pub async fn run(link: Link, command: EraseCommand, dry_run: bool, output: Output) -> Result<(), Failure> {
    let (scope, receipt) = match command {
        EraseCommand::Recording { id, part, receipt } => {
            let part = match part {
                None => v1::Part::Unspecified,
                Some(Part::Audio) => v1::Part::Audio,
                Some(Part::Facts) => v1::Part::Facts,
            };
            (Scope::Recording(EraseRecording { id: names::resolve(&id)?, part: part.into() }), receipt)
        }
        EraseCommand::Subscriber { name, future, receipt } => {
            let (tenant, subscriber) = names::resolve_subscriber(&name)?;
            let future = match future {
                Future::Continue => v1::Future::Continue,
                Future::Block => {
                    // The reader may be a script: it goes where messages go, and nothing waits for it.
                    use std::io::Write as _;
                    let _ = writeln!(
                        std::io::stderr(),
                        "quietus: --future block keeps a keyed hash of the name in the tenant, so that whoever can open the \
                         living tenant can test whether a name was blocked; `continue` remembers nothing"
                    );
                    v1::Future::Block
                }
            };
            (Scope::Subscriber(EraseSubscriber { tenant, subscriber, future: future.into() }), receipt)
        }
        EraseCommand::Tenant { name, confirm, receipt } => {
            let tenant = names::resolve(&name)?;
            let confirm = match confirm {
                Some(confirm) => names::resolve(&confirm)?,
                None if dry_run => tenant.clone(),
                None => {
                    let what = "erases the tenant and everything below it: add --confirm NAME with the tenant's name";
                    return Err(Failure::usage(format!("{what}, or --dry-run to see what it would meet")));
                }
            };
            (Scope::Tenant(confirmed(tenant, confirm)?), receipt)
        }
    };
    if dry_run { preview(link, scope, output).await } else { erase(link, scope, receipt.as_deref(), output).await }
}

/// A tenant that was named twice.
pub fn confirmed(tenant: String, confirm: String) -> Result<EraseTenant, Failure> {
    if tenant != confirm {
        return Err(Failure::usage("--confirm must repeat the tenant's name"));
    }
    Ok(EraseTenant { tenant, confirm })
}

/// Says what an erasure would meet, and erases nothing.
async fn preview(link: Link, scope: Scope, output: Output) -> Result<(), Failure> {
    let request = EraseRequest { scope: Some(scope), dry_run: true, ..EraseRequest::default() };
    let answer = ErasureServiceClient::new(link).erase(request).await?.into_inner();
    let standing = answer.standing.unwrap_or_default();
    let mut json = standing_json(&standing);
    json["waits_for"] = answer.waits_for.clone().into();
    json["copies_that_left"] = answer.copies_that_left.clone().into();
    output.one(json, || {
        let mut text = standing_text(&standing);
        for waits in &answer.waits_for {
            text.push_str(&format!("\nwaits for            {waits}"));
        }
        text.push_str(&format!("\ncopies that left     {}", answer.copies_that_left));
        text
    })
}

/// What lies in a scope and what stands there, for machines.
pub fn standing_json(standing: &Standing) -> serde_json::Value {
    let holds: Vec<_> = standing
        .holds
        .iter()
        .map(|hold| {
            serde_json::json!({
                "id": hold.id, "ground": hold.ground, "review": moment(hold.review_ms), "recordings": hold.recordings,
            })
        })
        .collect();
    let floors: Vec<_> = standing
        .floors
        .iter()
        .map(|floor| {
            serde_json::json!({
                "ground": floor.ground, "until": moment(floor.until_ms), "recordings": floor.recordings,
            })
        })
        .collect();
    serde_json::json!({
        "recordings": standing.recordings,
        "with_audio": standing.with_audio,
        "with_facts": standing.with_facts,
        "restricted": standing.restricted,
        "bound": standing.bound,
        "holds": holds,
        "floors": floors,
    })
}

/// The same for people.
pub fn standing_text(standing: &Standing) -> String {
    let mut text = format!(
        "recordings           {} ({} with audio, {} with facts)\nrestricted           {}\nbound, of others     {}",
        standing.recordings, standing.with_audio, standing.with_facts, standing.restricted, standing.bound
    );
    for hold in &standing.holds {
        let review = moment(hold.review_ms).unwrap_or_default();
        text.push_str(&format!(
            "\nhold                 {} on {} recordings: {}, review {review}",
            hold.id, hold.recordings, hold.ground
        ));
    }
    for floor in &standing.floors {
        let until = moment(floor.until_ms).unwrap_or_default();
        text.push_str(&format!(
            "\nfloor                on {} recordings until {until}: {}",
            floor.recordings, floor.ground
        ));
    }
    text
}

/// Asks for an erasure and says what it did.
pub async fn erase(link: Link, scope: Scope, receipt: Option<&Path>, output: Output) -> Result<(), Failure> {
    let opening = crypto::random::<32>();
    let digits = HEXLOWER.encode(&opening);
    // Whoever erases again would lose what opens the first receipt: nobody else has it.
    if let Some(there) = receipt.and_then(|path| [path.to_owned(), beside(path)].into_iter().find(|it| it.exists())) {
        return Err(Failure::usage(format!("--receipt: {} is there already; name another file", there.display())));
    }
    // Before the erasure: afterwards it would be too late to find that it cannot be kept.
    if let Some(path) = receipt {
        receipt::write(&beside(path), &format!("{digits}\n"))?;
    }
    let request = EraseRequest { scope: Some(scope), scope_opening: opening.to_vec().into(), dry_run: false };
    let answer = match ErasureServiceClient::new(link).erase(request).await {
        Ok(answer) => answer.into_inner(),
        Err(refused) => return Err(waits(refused, digits, receipt, output)?),
    };
    let digits = match answer.scope_opening.is_empty() {
        true => digits,
        false => HEXLOWER.encode(&answer.scope_opening),
    };
    if let Some(path) = receipt {
        receipt::write(&beside(path), &format!("{digits}\n"))?;
        if !answer.receipt.is_empty() {
            receipt::write(path, &answer.receipt)?;
        }
    }
    let outcome = match answer.outcome() {
        Outcome::Erased => "erased",
        Outcome::Sealed => "sealed",
        _ => "already-erased",
    };
    let json = serde_json::json!({
        "outcome": outcome,
        "generation_from": answer.generation_from,
        "generation_to": answer.generation_to,
        "slot_forgets": answer.slot_forgets,
        "receipt": answer.receipt_id,
        "opening": receipt.is_none().then_some(&digits),
    });
    output.one(json, || {
        let what = match answer.outcome() {
            Outcome::Sealed => format!(
                "sealed, not yet destroyed: the backup's object storage is away, or slots that are away or lost still hold \
                 enough of a root of before; the receipt will state it (`quietus receipt show {}`)",
                answer.receipt_id
            ),
            Outcome::Erased => format!(
                "erased: root generation {} destroyed, {} in its place; the slot forgets: {}",
                answer.generation_from, answer.generation_to, answer.slot_forgets
            ),
            _ => "nothing was left to erase".to_owned(),
        };
        let opening = match receipt {
            Some(path) if answer.outcome() == Outcome::Sealed => format!("its opening in {}", beside(path).display()),
            Some(path) => format!("in {}; its opening in {}", path.display(), beside(path).display()),
            None => format!("opening {digits}"),
        };
        format!("{what}\nreceipt {}, {opening}", answer.receipt_id)
    })
}

/// Says what is known of the receipt of an erasure that waits; gives the failure that the command ends with.
fn waits(refused: tonic::Status, drawn: String, receipt: Option<&Path>, output: Output) -> Result<Failure, Failure> {
    let metadata = rpc::decode(refused.details()).map(|info| info.metadata).unwrap_or_default();
    let failure = Failure::from(refused);
    let Some(id) = metadata.get(rpc::RECEIPT_ID) else { return Ok(failure) };
    let digits = metadata.get(rpc::SCOPE_OPENING).unwrap_or(&drawn);
    if let Some(path) = receipt {
        receipt::write(&beside(path), &format!("{digits}\n"))?;
    }
    let json = serde_json::json!({
        "outcome": "parked",
        "receipt": id,
        "opening": receipt.is_none().then_some(digits),
    });
    output.one(json, || {
        let (opening, file) = match receipt {
            Some(path) => (format!("its opening in {}", beside(path).display()), format!(" -o {}", path.display())),
            None => (format!("opening {digits}"), String::new()),
        };
        format!("receipt {id}, {opening}; once it has run, `quietus receipt show {id}{file}` fetches it")
    })?;
    Ok(failure)
}

/// `FILE.opening`.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".opening");
    name.into()
}
