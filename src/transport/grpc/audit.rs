//! `AuditService`: entries for whose they are; checkpoints and proofs, which tell of nobody.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        AuditCheckpoint, ConsistencyProof, GetCheckpointRequest, GetConsistencyProofRequest, GetInclusionProofRequest,
        GetVerifierKeyRequest, InclusionProof, TailRequest, TailResponse, VerifierKey,
        audit_service_server::AuditService,
    },
    transport::{Gateway, auth::Action, convert},
    vault::TailOf,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl AuditService for Gateway {
    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<TailResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let request = request.into_inner();
        let (after, limit) = (request.after, convert::limit(request.limit));
        let of = convert::tail_of(request).map_err(refuse)?;
        let tenant = match &of {
            TailOf::Tenant(tenant) | TailOf::Subscriber { tenant, .. } => Some(tenant.as_str()),
            TailOf::Group | TailOf::Recording(_) => None,
        };
        identity.authorize(Action::ReadAudit, tenant).map_err(refuse)?;
        let vault = self.vault.clone();
        // Reads a page of entries for each quarter, and opens them: bounded, and long enough to be in nobody's way.
        let entries = tokio::task::spawn_blocking(move || vault.tail(&identity.scope, &of, after, limit));
        let entries = entries.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(TailResponse { entries: entries.into_iter().map(convert::audit_entry).collect() }))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<AuditCheckpoint>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::VerifyAudit, None).map_err(refuse)?;
        self.vault.backed_soon().await;
        Ok(Response::new(AuditCheckpoint { note: self.vault.checkpoint().map_err(refuse)? }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<GetInclusionProofRequest>,
    ) -> Result<Response<InclusionProof>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::VerifyAudit, None).map_err(refuse)?;
        let GetInclusionProofRequest { index, size } = request.into_inner();
        self.vault.backed_soon().await;
        let proof = self.vault.inclusion(index, (size != 0).then_some(size)).map_err(refuse)?;
        let hashes = proof.hashes.iter().map(|hash| hash.to_vec().into()).collect();
        Ok(Response::new(InclusionProof { index, size: proof.size, leaf_hash: proof.leaf.to_vec().into(), hashes }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<GetConsistencyProofRequest>,
    ) -> Result<Response<ConsistencyProof>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::VerifyAudit, None).map_err(refuse)?;
        let GetConsistencyProofRequest { old_size, new_size } = request.into_inner();
        let new = (new_size != 0).then_some(new_size);
        self.vault.backed_soon().await;
        let (new_size, hashes) = self.vault.consistency(old_size, new).map_err(refuse)?;
        let hashes = hashes.iter().map(|hash| hash.to_vec().into()).collect();
        Ok(Response::new(ConsistencyProof { old_size, new_size, hashes }))
    }

    async fn get_verifier_key(&self, request: Request<GetVerifierKeyRequest>) -> Result<Response<VerifierKey>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::VerifyAudit, None).map_err(refuse)?;
        Ok(Response::new(VerifierKey { vkey: self.vault.verifier_key() }))
    }
}
