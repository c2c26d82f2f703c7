//! `HoldService`: placing, lifting, reviewing holds, and what waits for them.

use super::{caller, refuse};
use crate::{
    domain::{id::HoldId, time::Timestamp},
    proto::v1::{
        self, Hold, LiftHoldRequest, LiftHoldResponse, ListHoldsRequest, ListHoldsResponse, ListParkedRequest,
        ListParkedResponse, Parked, PlaceHoldRequest, PlaceHoldResponse, ReviewHoldRequest, hold,
        hold_service_server::HoldService, place_hold_request,
    },
    transport::{Gateway, auth::Action, convert, error::Problem},
    vault::{self, HoldScope, NewHold, Part},
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl HoldService for Gateway {
    /// A change runs to its end in a task of its own, whether the client waits for the answer or not.
    async fn place_hold(&self, request: Request<PlaceHoldRequest>) -> Result<Response<PlaceHoldResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let new = new_hold(request.into_inner()).map_err(refuse)?;
        let tenant = (!new.tenant.is_empty()).then_some(new.tenant.as_str());
        identity.authorize(Action::PlaceHold, tenant).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let placed = tokio::spawn(async move { vault.place_hold(&actor, new).await });
        let placed = placed.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(PlaceHoldResponse {
            hold: Some(shown(placed.hold)),
            found: placed.found,
            without_facts: placed.without_facts,
        }))
    }

    async fn lift_hold(&self, request: Request<LiftHoldRequest>) -> Result<Response<LiftHoldResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let id = hold_id(&request.into_inner().id).map_err(refuse)?;
        identity.authorize(Action::LiftHold, None).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let ran = tokio::spawn(async move { vault.lift_hold(&actor, id).await });
        let ran = ran.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(LiftHoldResponse {
            erased: ran.erased,
            expiries: ran.expiries,
            moved: ran.moved,
            left: ran.left,
            receipt_ids: ran.receipts.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn list_holds(&self, request: Request<ListHoldsRequest>) -> Result<Response<ListHoldsResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = request.into_inner().tenant;
        let tenant = (!tenant.is_empty()).then_some(tenant.as_str());
        identity.authorize(Action::ReadHolds, tenant).map_err(refuse)?;
        let holds = self.vault.holds(&identity.actor(), tenant).map_err(refuse)?;
        Ok(Response::new(ListHoldsResponse { holds: holds.into_iter().map(shown).collect() }))
    }

    async fn review_hold(&self, request: Request<ReviewHoldRequest>) -> Result<Response<Hold>, Status> {
        let (identity, _) = caller(self, &request)?;
        let ReviewHoldRequest { id, next_review_ms } = request.into_inner();
        let id = hold_id(&id).map_err(refuse)?;
        identity.authorize(Action::PlaceHold, None).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let reviewed = tokio::spawn(async move { vault.review_hold(&actor, id, Timestamp(next_review_ms)).await });
        Ok(Response::new(shown(reviewed.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn list_parked(&self, request: Request<ListParkedRequest>) -> Result<Response<ListParkedResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = request.into_inner().tenant;
        let tenant = (!tenant.is_empty()).then_some(tenant.as_str());
        identity.authorize(Action::ReadHolds, tenant).map_err(refuse)?;
        let parked = self.vault.parked(&identity.actor(), tenant).map_err(refuse)?;
        Ok(Response::new(ListParkedResponse { parked: parked.into_iter().map(waiting).collect() }))
    }
}

fn hold_id(text: &str) -> Result<HoldId, Problem> {
    text.parse().map_err(|_| Problem::invalid("id", "a hold's id has 32 hexadecimal digits"))
}

fn new_hold(request: PlaceHoldRequest) -> Result<NewHold, Problem> {
    use place_hold_request::Scope;
    let moment = |ms: i64| (ms != 0).then_some(Timestamp(ms));
    let scope = match request.scope {
        None => return Err(Problem::invalid("scope", "say what to hold")),
        Some(Scope::Everything(_)) => HoldScope::Tenant,
        Some(Scope::Subscriber(name)) => HoldScope::Subscriber(name),
        Some(Scope::Recording(id)) => HoldScope::Recording(convert::recording_id(&id)?),
        Some(Scope::Number(number)) => {
            HoldScope::Number { number: number.number, from: moment(number.from_ms), to: moment(number.to_ms) }
        }
    };
    if request.tenant.is_empty() && !matches!(scope, HoldScope::Recording(_)) {
        return Err(Problem::invalid("tenant", "name the tenant"));
    }
    Ok(NewHold {
        tenant: request.tenant,
        scope,
        ground: request.ground,
        authority: request.authority,
        review: Timestamp(request.review_ms),
    })
}

fn shown(hold: vault::Hold) -> Hold {
    use hold::Scope;
    Hold {
        id: hold.id.to_string(),
        tenant: hold.tenant,
        scope: Some(match hold.scope {
            HoldScope::Tenant => Scope::Everything(v1::HoldEverything {}),
            HoldScope::Subscriber(name) => Scope::Subscriber(name),
            HoldScope::Recording(id) => Scope::Recording(id.to_string()),
            HoldScope::Number { number, from, to } => Scope::Number(v1::HoldNumber {
                number,
                from_ms: from.map_or(0, |from| from.0),
                to_ms: to.map_or(0, |to| to.0),
            }),
        }),
        ground: hold.ground,
        authority: hold.authority,
        review_ms: hold.review.0,
        overdue: hold.overdue,
        placed_ms: hold.placed.0,
        placed_by: hold.placed_by,
        parked: hold.parked,
        lifted: hold.lifted,
    }
}

fn waiting(waiting: vault::Waiting) -> Parked {
    Parked {
        hold: waiting.hold.to_string(),
        tenant: waiting.tenant,
        subscriber: waiting.subscriber,
        recording: waiting.recording.map_or_else(String::new, |id| id.to_string()),
        part: match waiting.part {
            Some(Part::Both) => "both",
            Some(Part::Audio) => "audio",
            Some(Part::Facts) => "facts",
            None => "",
        }
        .into(),
        expiry: waiting.expiry,
        asked_by: waiting.asked_by,
        asked_ms: waiting.asked.0,
        receipt_id: waiting.receipt.map_or_else(String::new, |id| id.to_string()),
    }
}
