//! `PlaybackService`: hands on what the vault has authenticated, as fast as the client reads.

use super::{caller, refuse};
use crate::{
    proto::v1::{PlayChunk, PlayRequest, PlayResponse, play_response::Event, playback_service_server::PlaybackService},
    transport::{Gateway, auth::Action, convert},
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
        let playback = self.vault.play(&identity.actor(), id, range, transport).await.map_err(refuse)?;
        let info = Ok(Event::Info(convert::play_info(playback.info())));
        let chunks = playback.map(|chunk| chunk.map(|content| Event::Chunk(PlayChunk { content })).map_err(refuse));
        let events = tokio_stream::once(info).chain(chunks);
        Ok(Response::new(Box::pin(events.map(|event| event.map(|event| PlayResponse { event: Some(event) })))))
    }
}
