//! Data blobs: small pieces that a participant keeps in its room for others to fetch, as the schemas of its data tracks.
//! They go with it.

use livekit_protocol as proto;
use prost::Message as _;
use proto::{DataBlob, DataBlobKey, request_response::Reason, signal_response::Message as Response};

use super::room::Room;
use crate::id::{Identity, ParticipantSid};

/// Bytes of one blob's content, as LiveKit's clients bound it, and of its key.
const BLOB_BYTES_MAX: usize = 50_000;
const KEY_BYTES_MAX: usize = 1024;
/// Blobs of one participant.
const BLOBS_MAX: usize = 16;

impl Room {
    /// Keeps a blob; one that has the same key is replaced.
    pub(super) fn store_blob(&mut self, sid: &ParticipantSid, request: proto::StoreDataBlobRequest) {
        let Some(p) = self.get_mut(sid) else { return };
        let proto::StoreDataBlobRequest { request_id, blob } = request;
        let Some(DataBlob { key: Some(key), contents }) = blob.filter(|blob| is_named(blob.key.as_ref())) else {
            return self.refuse(sid, request_id, Reason::InvalidRequest, None);
        };
        if !p.grants.can_publish_data() {
            return self.refuse(sid, request_id, Reason::NotAllowed, None);
        }
        let kept = p.blobs.iter().position(|blob| blob.key.as_ref() == Some(&key));
        let is_full = kept.is_none() && p.blobs.len() >= BLOBS_MAX;
        if is_full || contents.len() > BLOB_BYTES_MAX || key.encoded_len() > KEY_BYTES_MAX {
            return self.refuse(sid, request_id, Reason::LimitExceeded, None);
        }
        let blob = DataBlob { key: Some(key.clone()), contents };
        match kept {
            Some(at) => p.blobs[at] = blob,
            None => p.blobs.push(blob),
        }
        self.tell(sid, Response::StoreDataBlobResponse(proto::StoreDataBlobResponse { request_id, key: Some(key) }));
    }

    /// Gives a blob of somebody's to who asks for it.
    pub(super) fn get_blob(&mut self, sid: &ParticipantSid, request: &proto::GetDataBlobRequest) {
        let request_id = request.request_id;
        let owner = Identity::from(request.participant_identity.as_str());
        let visible = |p: &&super::participant::Participant| p.identity == owner && (!p.hidden() || p.sid == *sid);
        let blobs = self.participants.iter().find(visible).map(|p| &p.blobs);
        let found = blobs.and_then(|blobs| blobs.iter().find(|blob| blob.key == request.key)).cloned();
        match found {
            Some(blob) => {
                let response = proto::GetDataBlobResponse { request_id, blob: Some(blob) };
                self.tell(sid, Response::GetDataBlobResponse(response));
            }
            None => self.refuse(sid, request_id, Reason::NotFound, None),
        }
    }
}

fn is_named(key: Option<&DataBlobKey>) -> bool {
    key.is_some_and(|key| key.key.is_some())
}
