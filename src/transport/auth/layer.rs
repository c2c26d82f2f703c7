//! Settles who is asking, once for each request and before a byte of its body is read, and ends the answer when what proved
//! the name is taken back or expires.
//!
//! What a stranger sends takes no memory: it is refused here. The [`Identity`] goes into the request's extensions, where the
//! handlers find it. An answer that runs on (a playback, a recording's watermarks, an audit tail) is wrapped: when the
//! identity's [`Identity::proof`] ends the answer breaks off, the handler's side of it is dropped, and with it
//! whatever the handler held. A gRPC answer ends with its status, any other one short of its length.

use super::{super::error::Problem, CertificateName, Denied, Identity, bearer, oidc};
use crate::{
    transport::{Authority, Gateway, Peer, http as files},
    vault::{ApiKeyId, Scope},
};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Frame;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Puts the identity into a request that needs one, or answers it.
pub async fn identified(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let grpc = path.starts_with("/quietus.");
    if !grpc && !files::needs_identity(path) {
        return next.run(request).await;
    }
    let token = match request.headers().get(header::AUTHORIZATION) {
        // A header of another scheme is not "no token": it falls through to a refusal, not to the certificate.
        Some(header) => Some(bearer(header.to_str().ok()).unwrap_or_default()),
        None if grpc => None,
        None => files::access_token(request.uri()),
    };
    let peer = request.extensions().get::<Peer>();
    let identity = match peer {
        None => Err(Denied::Nobody),
        Some(peer) => gateway.identify(&peer.certificate, token).await,
    };
    match identity {
        Err(denied) if grpc => tonic::Status::from(Problem::from(denied)).into_http(),
        Err(denied) => Problem::from(denied).into_response(),
        Ok(identity) => {
            let (vault, proof) = (gateway.vault.clone(), identity.proof());
            let ended = Box::pin(async move { vault.proof_ends(proof).await });
            request.extensions_mut().insert(identity);
            if let Some(authority) = request.uri().authority().map(|authority| Authority(authority.to_string())) {
                request.extensions_mut().insert(authority);
            }
            let answer = next.run(request).await;
            answer.map(|body| Body::new(Cut { body: Some(body), ended, grpc }))
        }
    }
}

impl Gateway {
    /// Who sends a request, by its token or by the connection's certificate.
    pub async fn identify(&self, certificate: &CertificateName, token: Option<&str>) -> Result<Identity, Denied> {
        match token {
            None => self.by_certificate(certificate),
            Some(token) if token.starts_with(ApiKeyId::PREFIX) => self.by_api_key(token),
            // base64url has no dots; a signed token has two.
            Some(token) if token.contains('.') => self.by_signed_token(token).await,
            Some(token) => self.identities.by_token(token),
        }
    }

    /// A switch reaches what the file gives it, and every tenant that has enrolled it.
    fn by_certificate(&self, certificate: &CertificateName) -> Result<Identity, Denied> {
        let name = self.identities.certified(certificate)?;
        let listed = self.identities.by_name(name);
        let enrolments = match name.strip_prefix("switch/") {
            Some(switch) => self.vault.enrolments(switch),
            None => Vec::new(),
        };
        if enrolments.is_empty() {
            return listed.ok_or(Denied::NotKnown);
        }
        let mut scope = match &listed {
            Some(listed) => listed.scope.clone(),
            None => Scope::Tenants(Vec::new()),
        };
        if let Scope::Tenants(names) = &mut scope {
            for enrolment in &enrolments {
                if !names.contains(&enrolment.tenant) {
                    names.push(enrolment.tenant.clone());
                }
            }
        }
        let role = super::Role::Switch;
        let alive = listed.map(|listed| listed.alive).unwrap_or_default();
        Ok(Identity { scope, enrolments: Arc::from(enrolments), alive, ..self.anybody(name.to_owned(), role) })
    }

    fn by_api_key(&self, token: &str) -> Result<Identity, Denied> {
        let holder = self.vault.api_key(token).ok_or(Denied::NotKnown)?;
        Ok(Identity {
            besides: Some(holder.role.actor_role()),
            scope: Scope::Tenants(vec![holder.tenant]),
            alive: holder.alive,
            ..self.anybody(holder.name, super::Role::ApiKey)
        })
    }

    async fn by_signed_token(&self, token: &str) -> Result<Identity, Denied> {
        let unverified = oidc::unverified(token)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.issuer() == unverified.issuer);
        let issuer = issuer.ok_or(Denied::Token("its issuer is not known here"))?;
        let judged = issuer.judge(token, &unverified, self.vault.now()).await?;
        Ok(Identity {
            on_behalf_of: judged.on_behalf_of,
            besides: judged.besides,
            scope: judged.reach.into(),
            until: Some(judged.until),
            ..self.anybody(judged.name, judged.role)
        })
    }

    fn anybody(&self, name: String, role: super::Role) -> Identity {
        Identity {
            name,
            on_behalf_of: None,
            role,
            besides: None,
            scope: Scope::Tenants(Vec::new()),
            alive: Default::default(),
            until: None,
            enrolments: Arc::from([]),
            access: self.identities.access().clone(),
        }
    }
}

/// An answer that ends with what proved its caller's name.
struct Cut {
    /// Taken when it is cut, so that what produces it goes at once.
    body: Option<Body>,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    grpc: bool,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if body.is_end_stream() {
            return Poll::Ready(None);
        }
        if this.ended.as_mut().poll(cx).is_ready() {
            this.body = None;
            let problem = Problem::from(Denied::Revoked);
            return Poll::Ready(Some(match this.grpc {
                true => trailers(problem).map(Frame::trailers).map_err(axum::Error::new),
                false => Err(axum::Error::new(std::io::Error::other(problem.message))),
            }));
        }
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

fn trailers(problem: Problem) -> Result<HeaderMap, tonic::Status> {
    let mut headers = HeaderMap::new();
    tonic::Status::from(problem).add_header(&mut headers)?;
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use tokio_util::sync::CancellationToken;

    fn cut(body: Body, grpc: bool) -> (Cut, CancellationToken) {
        let alive = CancellationToken::new();
        (Cut { body: Some(body), ended: Box::pin(alive.clone().cancelled_owned()), grpc }, alive)
    }

    #[tokio::test]
    async fn an_answer_ends_when_its_callers_name_is_taken_back() {
        for grpc in [true, false] {
            let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
            let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let (mut cut, alive) = cut(Body::from_stream(stream), grpc);
            sender.send(Ok(Bytes::from_static(b"heard"))).await.expect("room");
            assert!(cut.frame().await.expect("a frame").expect("good").is_data());
            sender.send(Ok(Bytes::from_static(b"never heard"))).await.expect("room");
            alive.cancel();
            let end = cut.frame().await.expect("an end");
            match grpc {
                true => {
                    let trailers = end.expect("trailers").into_trailers().expect("trailers");
                    assert_eq!(trailers.get("grpc-status").map(|code| code.as_bytes()), Some(&b"16"[..]));
                }
                false => assert!(end.is_err()),
            }
            assert!(sender.is_closed(), "what produced the answer is let go of");
            assert!(cut.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn an_answer_whose_caller_stays_runs_to_its_end() {
        let (cut, _alive) = cut(Body::from("all of it"), false);
        assert_eq!(http_body::Body::size_hint(&cut).exact(), Some(9));
        assert_eq!(cut.collect().await.expect("whole").to_bytes(), "all of it");
    }
}
