//! `RecordingService`: opens a session per stream, and shows what is known about recordings.

use super::{caller, record, refuse};
use crate::{
    proto::v1::{
        BindPartiesRequest, BindPartiesResponse, CorrectRequest, CorrectResponse, GetBasisRequest, GetBasisResponse,
        GetRecordingRequest, ListRecordingsRequest, ListRecordingsResponse, RecordRequest, RecordResponse, Recording,
        recording_service_server::RecordingService,
    },
    transport::{Gateway, auth::Action, convert},
    vault::Page,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const DEFAULT_PAGE: u32 = 500;
const MAX_PAGE: u32 = 5000;

#[tonic::async_trait]
impl RecordingService for Gateway {
    type RecordStream = ReceiverStream<Result<RecordResponse, Status>>;

    /// Answers at once and goes on in a task, so that a client that waits for the headers before it sends Open does not
    /// wait for ever.
    async fn record(&self, request: Request<Streaming<RecordRequest>>) -> Result<Response<Self::RecordStream>, Status> {
        let (identity, _) = caller(self, &request)?;
        let (answers, stream) = mpsc::channel(record::ANSWERS);
        tokio::spawn(record::run(self.vault.clone(), identity, request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get(&self, request: Request<GetRecordingRequest>) -> Result<Response<Recording>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::Show, None).map_err(refuse)?;
        let request = request.into_inner();
        let id = convert::recording_id(&request.id).map_err(refuse)?;
        let recording = self.vault.recording(&identity.actor(), id, &request.ticket).await.map_err(refuse)?;
        Ok(Response::new(convert::recording(recording)))
    }

    async fn get_basis(&self, request: Request<GetBasisRequest>) -> Result<Response<GetBasisResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::Play, None).map_err(refuse)?;
        let id = convert::recording_id(&request.get_ref().id).map_err(refuse)?;
        let basis = self.vault.basis(&identity.actor(), id).await.map_err(refuse)?;
        Ok(Response::new(convert::basis(basis)))
    }

    /// As an erasure, it runs to its end in a task of its own, whether the client waits for the answer or not.
    async fn bind_parties(
        &self,
        request: Request<BindPartiesRequest>,
    ) -> Result<Response<BindPartiesResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::BindParties, None).map_err(refuse)?;
        let BindPartiesRequest { id, parties } = request.into_inner();
        let id = convert::recording_id(&id).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let done = tokio::spawn(async move { vault.bind_parties(&actor, id, &parties).await });
        done.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(BindPartiesResponse {}))
    }

    /// The same.
    async fn correct(&self, request: Request<CorrectRequest>) -> Result<Response<CorrectResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::Correct, None).map_err(refuse)?;
        let request = request.into_inner();
        let id = convert::recording_id(&request.id).map_err(refuse)?;
        let correction = convert::correction(request).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let done = tokio::spawn(async move { vault.correct_facts(&actor, id, correction).await });
        done.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(CorrectResponse {}))
    }

    async fn list(&self, request: Request<ListRecordingsRequest>) -> Result<Response<ListRecordingsResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let request = request.into_inner();
        identity.authorize(Action::List, Some(&request.tenant)).map_err(refuse)?;
        let page_size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        } as usize;
        let asked = (!request.subscriber.is_empty()).then_some(request.subscriber.as_str());
        let subscriber = identity.subscriber(asked).map_err(refuse)?.map(str::to_owned);
        let page = Page {
            tenant: request.tenant,
            subscriber,
            size: page_size,
            token: request.page_token,
            ticket: request.ticket,
        };
        let (recordings, next_page_token) = self.vault.recordings(&identity.actor(), page).await.map_err(refuse)?;
        let recordings = recordings.into_iter().map(convert::recording).collect();
        Ok(Response::new(ListRecordingsResponse { recordings, next_page_token }))
    }
}
