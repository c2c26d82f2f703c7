//! `PlaybackService`: hands on what the vault has authenticated, as fast as the client reads.

use super::{caller, refuse};
use crate::{
    proto::v1::{PlayChunk, PlayRequest, PlayResponse, play_response::Event, playback_service_server::PlaybackService},
    transport::{Gateway, auth::Action, convert},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Chunks of at most 64 KiB under way to a client.
const CHUNKS: usize = 4;

#[tonic::async_trait]
impl PlaybackService for Gateway {
    type PlayStream = ReceiverStream<Result<PlayResponse, Status>>;

    async fn play(&self, request: Request<PlayRequest>) -> Result<Response<Self::PlayStream>, Status> {
        let (identity, transport) = caller(self, &request)?;
        identity.authorize(Action::Play, None).map_err(refuse)?;
        let request = request.into_inner();
        let id = convert::recording_id(&request.id).map_err(refuse)?;
        let range = convert::play_range(request.range).map_err(refuse)?;
        let mut playback =
            self.vault.play(&identity.scope, id, range, &identity.name, transport).await.map_err(refuse)?;
        let (answers, stream) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            let mut next = Some(Ok(Event::Info(convert::play_info(playback.info()))));
            while let Some(event) = next {
                let failed = event.is_err();
                let answer = event.map(|event| PlayResponse { event: Some(event) }).map_err(refuse);
                // A client that is gone needs no more.
                if answers.send(answer).await.is_err() || failed {
                    return;
                }
                next = playback.next().await.map(|chunk| chunk.map(|content| Event::Chunk(PlayChunk { content })));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
