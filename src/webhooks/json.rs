//! An event as the bytes that are sent: proto3 JSON, made once.

use base64::{Engine, engine::general_purpose::STANDARD};
use livekit_protocol as proto;
use proto::{ParticipantInfo, TrackInfo, WebhookEvent};
use sha2::{Digest, Sha256};

use super::Hook;

/// The hook of this event. Fails where the event cannot be said in JSON, which is a mistake of ours.
pub(super) fn hook(mut event: WebhookEvent) -> Result<Hook, serde_json::Error> {
    event.participant.iter_mut().for_each(only_known_in_participant);
    event.track.iter_mut().for_each(only_known_in_track);
    let body = serde_json::to_vec(&event)?;
    let sha256 = STANDARD.encode(Sha256::digest(&body));
    let room = event.room.map(|room| room.sid).unwrap_or_default();
    Ok(Hook { event: event.event, id: event.id, room, body: body.into(), sha256 })
}

/// Numbers that clients chose and that name nothing here have no form in JSON: they become the default, or go.
fn only_known_in_participant(info: &mut ParticipantInfo) {
    retain::<proto::client_info::Capability>(&mut info.capabilities);
    info.tracks.iter_mut().for_each(only_known_in_track);
}

#[allow(deprecated)] // filled in for older clients
fn only_known_in_track(info: &mut TrackInfo) {
    reset::<proto::TrackType>(&mut info.r#type);
    reset::<proto::TrackSource>(&mut info.source);
    reset::<proto::encryption::Type>(&mut info.encryption);
    reset::<proto::BackupCodecPolicy>(&mut info.backup_codec_policy);
    retain::<proto::AudioTrackFeature>(&mut info.audio_features);
    retain::<proto::PacketTrailerFeature>(&mut info.packet_trailer_features);
    for codec in &mut info.codecs {
        reset::<proto::video_layer::Mode>(&mut codec.video_layer_mode);
    }
    let layers = info.layers.iter_mut().chain(info.codecs.iter_mut().flat_map(|codec| &mut codec.layers));
    layers.for_each(|layer| reset::<proto::VideoQuality>(&mut layer.quality));
}

fn reset<E: TryFrom<i32>>(value: &mut i32) {
    if E::try_from(*value).is_err() {
        *value = 0;
    }
}

fn retain<E: TryFrom<i32>>(values: &mut Vec<i32>) {
    values.retain(|value| E::try_from(*value).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_proto_json_and_the_hash_is_the_bodys() {
        let room = proto::Room { sid: "RM_1".into(), name: "room".into(), ..Default::default() };
        let event = WebhookEvent {
            event: "room_started".into(),
            id: "EV_1".into(),
            created_at: 1_800_000_000,
            room: Some(room),
            ..Default::default()
        };
        let hook = hook(event).unwrap();
        assert_eq!(
            std::str::from_utf8(&hook.body).unwrap(),
            r#"{"event":"room_started","room":{"sid":"RM_1","name":"room"},"id":"EV_1","createdAt":"1800000000"}"#
        );
        assert_eq!((hook.room.as_str(), hook.id.as_str()), ("RM_1", "EV_1"));
        assert_eq!(STANDARD.decode(hook.sha256).unwrap(), Sha256::digest(&hook.body).to_vec());
    }

    #[test]
    #[allow(deprecated)]
    fn numbers_of_clients_that_name_nothing_do_not_lose_the_event() {
        let layer = || proto::VideoLayer { quality: 9999, ..Default::default() };
        let codec = proto::SimulcastCodecInfo { video_layer_mode: 9999, layers: vec![layer()], ..Default::default() };
        let track = TrackInfo {
            r#type: 9999,
            source: 9999,
            encryption: 9999,
            backup_codec_policy: 9999,
            audio_features: vec![9999, 0],
            packet_trailer_features: vec![9999],
            layers: vec![layer()],
            codecs: vec![codec],
            ..Default::default()
        };
        let participant =
            ParticipantInfo { capabilities: vec![9999, 1], tracks: vec![track.clone()], ..Default::default() };
        let event = WebhookEvent { participant: Some(participant), track: Some(track), ..Default::default() };
        let body: serde_json::Value = serde_json::from_slice(&hook(event).unwrap().body).unwrap();
        assert_eq!(body["track"]["audioFeatures"].as_array().unwrap().len(), 1);
        assert_eq!(body["participant"]["capabilities"].as_array().unwrap().len(), 1);
    }
}
