//! `quietus hold`: places, lifts, lists and reviews holds. Status 7 when a hold is past its review date.

use super::{
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::proto::v1::{
    Hold, HoldEverything, HoldNumber, LiftHoldRequest, ListHoldsRequest, ListParkedRequest, Parked, PlaceHoldRequest,
    ReviewHoldRequest, hold, hold_service_client::HoldServiceClient, place_hold_request::Scope,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// `quietus hold …`
#[derive(Subcommand)]
pub enum HoldCommand {
    /// Keep something although it is erased or expires; prints the hold's id.
    Place(Place),
    /// Let go; what waited for this hold alone is done.
    Lift {
        /// Its id.
        id: String,
    },
    /// List holds, or what waits for them.
    List {
        /// Of this tenant only.
        #[arg(long)]
        tenant: Option<String>,
        /// Erasures and expiries that wait, instead of holds.
        #[arg(long)]
        parked: bool,
    },
    /// Say that somebody looked whether it is still needed.
    Review {
        /// Its id.
        id: String,
        /// When the next look is due, e.g. 2027-06-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        next: jiff::Timestamp,
    },
}

/// `quietus hold place …`
#[derive(Args)]
#[command(group(clap::ArgGroup::new("scope").required(true).args(["everything", "subscriber", "recording", "number"])))]
pub struct Place {
    /// Whose; not needed with --recording.
    #[arg(long, required_unless_present = "recording")]
    tenant: Option<String>,
    /// Everything of the tenant.
    #[arg(long)]
    everything: bool,
    /// Everything of a subscriber.
    #[arg(long, value_name = "NAME")]
    subscriber: Option<String>,
    /// One recording, and what was made from it.
    #[arg(long, value_name = "ID")]
    recording: Option<String>,
    /// Every call in which this number took part.
    #[arg(long, value_name = "NUMBER")]
    number: Option<String>,
    /// With --number: calls that began at this moment or later.
    #[arg(long, value_name = "TIME", requires = "number")]
    from: Option<jiff::Timestamp>,
    /// With --number: calls that began before this moment.
    #[arg(long, value_name = "TIME", requires = "number")]
    to: Option<jiff::Timestamp>,
    /// Why: litigation, dispute, investigation, or any words.
    #[arg(long)]
    ground: String,
    /// On whose word.
    #[arg(long)]
    authority: String,
    /// When somebody must look whether it is still needed, e.g. 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    review: jiff::Timestamp,
}

/// Runs the command.
pub async fn run(link: Link, command: HoldCommand, output: Output) -> Result<(), Failure> {
    let mut client = HoldServiceClient::new(link);
    match command {
        HoldCommand::Place(place) => {
            let answer = client.place_hold(request(place)?).await?.into_inner();
            let hold = answer.hold.ok_or_else(|| Failure::failed("the gateway placed no hold"))?;
            let mut shown = as_json(&hold);
            shown["found"] = answer.found.into();
            shown["without_facts"] = answer.without_facts.into();
            output.one(shown, || {
                eprintln!("covers {} recordings now, and later ones", answer.found);
                if answer.without_facts > 0 {
                    eprintln!(
                        "the facts of {} recordings are gone, and whether it covers them cannot be told",
                        answer.without_facts
                    );
                }
                hold.id.clone()
            })
        }
        HoldCommand::Lift { id } => {
            let ran = client.lift_hold(LiftHoldRequest { id: names::resolve(&id)? }).await?.into_inner();
            let shown = json!({
                "erased": ran.erased, "expiries": ran.expiries, "moved": ran.moved, "left": ran.left,
                "receipts": ran.receipt_ids,
            });
            output.one(shown, || {
                let mut text = format!(
                    "lifted: {} erasures done, {} expiries go by their policy again, {} wait for another hold, {} are \
                     kept by a floor or restriction",
                    ran.erased, ran.expiries, ran.moved, ran.left
                );
                for receipt in &ran.receipt_ids {
                    text.push_str(&format!("\nreceipt {receipt}"));
                }
                text
            })
        }
        HoldCommand::List { tenant, parked: true } => {
            let tenant = tenant.as_deref().map(names::resolve).transpose()?.unwrap_or_default();
            let parked = client.list_parked(ListParkedRequest { tenant }).await?.into_inner().parked;
            if output.json {
                return parked.iter().try_for_each(|waits| output.one(parked_json(waits), String::new));
            }
            let rows: Vec<_> = parked.iter().map(parked_row).collect();
            output.table(&["HOLD", "TENANT", "SUBSCRIBER", "RECORDING", "WAITS", "ASKED BY", "SINCE"], &rows)
        }
        HoldCommand::List { tenant, parked: false } => {
            let tenant = tenant.as_deref().map(names::resolve).transpose()?.unwrap_or_default();
            let holds = client.list_holds(ListHoldsRequest { tenant }).await?.into_inner().holds;
            if output.json {
                holds.iter().try_for_each(|hold| output.one(as_json(hold), String::new))?;
            } else {
                let rows: Vec<_> = holds.iter().map(row).collect();
                output.table(&["ID", "TENANT", "HOLDS", "GROUND", "AUTHORITY", "REVIEW", "PARKED"], &rows)?;
            }
            match holds.iter().filter(|hold| hold.overdue).count() {
                0 => Ok(()),
                overdue => Err(Failure::overdue(format!(
                    "{overdue} holds are past their review date; look whether they are needed, then `hold review` or \
                     `hold lift`"
                ))),
            }
        }
        HoldCommand::Review { id, next } => {
            let request = ReviewHoldRequest { id: names::resolve(&id)?, next_review_ms: next.as_millisecond() };
            let hold = client.review_hold(request).await?.into_inner();
            output.one(as_json(&hold), || {
                format!("hold {}: next review {}", hold.id, moment(hold.review_ms).unwrap_or_default())
            })
        }
    }
}

fn request(place: Place) -> Result<PlaceHoldRequest, Failure> {
    let ms = |time: Option<jiff::Timestamp>| time.map_or(0, |time| time.as_millisecond());
    let scope = match (place.subscriber, place.recording, place.number) {
        (Some(subscriber), ..) => Scope::Subscriber(names::resolve(&subscriber)?),
        (_, Some(recording), _) => Scope::Recording(names::resolve(&recording)?),
        (.., Some(number)) => {
            Scope::Number(HoldNumber { number: names::resolve(&number)?, from_ms: ms(place.from), to_ms: ms(place.to) })
        }
        (None, None, None) => Scope::Everything(HoldEverything {}),
    };
    Ok(PlaceHoldRequest {
        tenant: place.tenant.as_deref().map(names::resolve).transpose()?.unwrap_or_default(),
        scope: Some(scope),
        ground: names::resolve(&place.ground)?,
        authority: names::resolve(&place.authority)?,
        review_ms: place.review.as_millisecond(),
    })
}

fn scope(hold: &Hold) -> String {
    match &hold.scope {
        None | Some(hold::Scope::Everything(_)) => "everything".into(),
        Some(hold::Scope::Subscriber(name)) => format!("subscriber {name}"),
        Some(hold::Scope::Recording(id)) => format!("recording {id}"),
        Some(hold::Scope::Number(number)) => {
            let mut text = format!("number {}", number.number);
            if let Some(from) = moment(number.from_ms) {
                text.push_str(&format!(" from {from}"));
            }
            if let Some(to) = moment(number.to_ms) {
                text.push_str(&format!(" to {to}"));
            }
            text
        }
    }
}

fn as_json(hold: &Hold) -> Value {
    let scope = match &hold.scope {
        None | Some(hold::Scope::Everything(_)) => json!({ "everything": true }),
        Some(hold::Scope::Subscriber(name)) => json!({ "subscriber": name }),
        Some(hold::Scope::Recording(id)) => json!({ "recording": id }),
        Some(hold::Scope::Number(number)) => {
            json!({ "number": number.number, "from": moment(number.from_ms), "to": moment(number.to_ms) })
        }
    };
    json!({
        "id": hold.id,
        "tenant": hold.tenant,
        "scope": scope,
        "ground": hold.ground,
        "authority": hold.authority,
        "review": moment(hold.review_ms),
        "overdue": hold.overdue,
        "placed": moment(hold.placed_ms),
        "placed_by": hold.placed_by,
        "parked": hold.parked,
        "lifted": hold.lifted,
    })
}

fn row(hold: &Hold) -> Vec<String> {
    let mut review = moment(hold.review_ms).unwrap_or_default();
    if hold.overdue {
        review.push_str(" OVERDUE");
    }
    if hold.lifted {
        review = "lifted".into();
    }
    vec![
        hold.id.clone(),
        hold.tenant.clone(),
        scope(hold),
        hold.ground.clone(),
        hold.authority.clone(),
        review,
        hold.parked.to_string(),
    ]
}

fn parked_json(parked: &Parked) -> Value {
    json!({
        "hold": parked.hold,
        "tenant": parked.tenant,
        "subscriber": parked.subscriber,
        "recording": parked.recording,
        "part": parked.part,
        "expiry": parked.expiry,
        "asked_by": parked.asked_by,
        "asked": moment(parked.asked_ms),
        "receipt": (!parked.receipt_id.is_empty()).then_some(&parked.receipt_id),
    })
}

fn parked_row(parked: &Parked) -> Vec<String> {
    let waits = match (parked.part.as_str(), parked.expiry) {
        ("", _) => "expiry".to_owned(),
        (part, false) => format!("erasure of {part}"),
        (part, true) => format!("erasure of {part}, expiry"),
    };
    vec![
        parked.hold.clone(),
        parked.tenant.clone(),
        parked.subscriber.clone(),
        if parked.recording.is_empty() { "all".into() } else { parked.recording.clone() },
        waits,
        parked.asked_by.clone(),
        moment(parked.asked_ms).unwrap_or_default(),
    ]
}
