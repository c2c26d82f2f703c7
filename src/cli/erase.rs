//! `quietus erase`: the answer comes after the previous root has been destroyed.

use super::{
    args::{EraseCommand, Future, Part},
    connect::Link,
    failure::Failure,
    names,
    output::Output,
};
use crate::proto::v1::{
    self, EraseRecording, EraseRequest, EraseSubscriber, EraseTenant, Outcome, erase_request::Scope,
    erasure_service_client::ErasureServiceClient,
};

/// Runs the command.
pub async fn run(link: Link, command: EraseCommand, output: Output) -> Result<(), Failure> {
    let scope = match command {
        EraseCommand::Recording { id, part } => {
            let part = match part {
                None => v1::Part::Unspecified,
                Some(Part::Audio) => v1::Part::Audio,
                Some(Part::Facts) => v1::Part::Facts,
            };
            Scope::Recording(EraseRecording { id: names::resolve(&id)?, part: part.into() })
        }
        EraseCommand::Subscriber { name, future } => {
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
            Scope::Subscriber(EraseSubscriber { tenant, subscriber, future: future.into() })
        }
        EraseCommand::Tenant { name } => {
            let tenant = names::resolve(&name)?;
            Scope::Tenant(EraseTenant { confirm: tenant.clone(), tenant })
        }
    };
    erase(link, scope, output).await
}

/// Asks for an erasure and says what it did.
pub async fn erase(link: Link, scope: Scope, output: Output) -> Result<(), Failure> {
    let answer = ErasureServiceClient::new(link).erase(EraseRequest { scope: Some(scope) }).await?.into_inner();
    let erased = answer.outcome() == Outcome::Erased;
    let json = serde_json::json!({
        "outcome": if erased { "erased" } else { "already-erased" },
        "generation_from": answer.generation_from,
        "generation_to": answer.generation_to,
        "slot_forgets": answer.slot_forgets,
    });
    output.one(json, || match erased {
        true => format!(
            "erased: root generation {} destroyed, {} in its place; the slot forgets: {}",
            answer.generation_from, answer.generation_to, answer.slot_forgets
        ),
        false => "nothing was left to erase".into(),
    })
}
