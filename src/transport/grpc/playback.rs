//! `PlaybackService`: hands on what the vault has authenticated, as fast as the client reads; gives out tickets.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        PlayChunk, PlayRequest, PlayResponse, TicketRequest, TicketResponse, play_response::Event,
        playback_service_server::PlaybackService,
    },
    transport::{Authority, Gateway, auth::Action, convert},
    vault::Hearing,
};
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl PlaybackService for Gateway {
    type PlayStream = Pin<Box<dyn Stream<Item = Result<PlayResponse, Status>> + Send>>;

    async fn play(&self, request: Request<PlayRequest>) -> Result<Response<Self::PlayStream>, Status> {
        let (identity, transport) = caller(self, &request)?;
        identity.authorize(Action::Play, None).map_err(refuse)?;
        let request = request.into_inner();
        let id = convert::recording_id(&request.id).map_err(refuse)?;
        let range = convert::play_range(request.range).map_err(refuse)?;
        let hearing = Hearing { transport, download: request.download };
        let playback =
            self.vault.play(&identity.actor(), identity.proof(), id, range, hearing).await.map_err(refuse)?;
        let info = Ok(Event::Info(convert::play_info(playback.info())));
        let chunks = playback.map(|chunk| chunk.map(|content| Event::Chunk(PlayChunk { content })).map_err(refuse));
        let events = tokio_stream::once(info).chain(chunks);
        Ok(Response::new(Box::pin(events.map(|event| event.map(|event| PlayResponse { event: Some(event) })))))
    }

    async fn ticket(&self, request: Request<TicketRequest>) -> Result<Response<TicketResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::Play, None).map_err(refuse)?;
        let id = convert::recording_id(&request.get_ref().id).map_err(refuse)?;
        let ticket = self.vault.ticket(&identity.actor(), identity.proof(), id).await.map_err(refuse)?;
        // Back to who asked, by the name under which it reached us.
        let host = request.extensions().get::<Authority>().map(|authority| authority.0.as_str()).unwrap_or_default();
        Ok(Response::new(TicketResponse {
            url: format!("https://{host}/v1/tickets/{}", ticket.token),
            start_before_ms: ticket.start_before.0,
            session_seconds: ticket.session_ms / 1000,
        }))
    }
}
