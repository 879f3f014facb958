//! Traps of LiveKit's protocol: what clients punish, each by its number in our notes of it.

use super::*;

#[test]
fn trap_02_answers_carry_the_offers_id() {
    let mut story = Story::new();
    let offer = |id| proto::SessionDescription { r#type: "offer".into(), sdp: "v=0".into(), id, ..Default::default() };
    let request = JoinRequest { publisher_offer: Some(offer(1)), ..Default::default() };
    let ada = story.join_with(claims("ada"), request).unwrap();
    // Native clients number nothing, others skip numbers.
    for id in [0, 7, u32::MAX] {
        story.ask(&ada, Ask::Offer(offer(id)));
    }
    let seen = story.look();
    let offered: Vec<u32> = seen
        .media()
        .filter_map(|command| if let Command::Offer { offer_id, .. } = command { Some(*offer_id) } else { None })
        .collect();
    assert_eq!(offered, [1, 0, 7, u32::MAX]);
    for id in offered {
        story.event(&ada, EventKind::Answer { offer_id: id, sdp: "v=0".into(), tracks: Vec::new() });
        let seen = story.look();
        let Some(Response::Answer(answer)) = seen.first(&ada) else { panic!("no answer to {id}") };
        assert_eq!((answer.id, answer.r#type.as_str()), (id, "answer"));
    }
}

#[test]
fn trap_05_pongs_are_in_milliseconds() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.ask(&ada, Ask::Ping(1));
    story.ask(&ada, Ask::PingReq(proto::Ping { timestamp: 42, rtt: 0 }));
    let seen = story.look();
    let [Response::Pong(pong), Response::PongResp(answer)] = seen.to(&ada)[..] else { panic!() };
    assert_eq!((*pong, answer.last_ping_timestamp, answer.timestamp), (1_800_000_000_000, 42, 1_800_000_000_000));
}

#[test]
fn trap_07_nothing_is_sent_before_join_or_reconnect() {
    let mut story = Story::new();
    let eve = story.enter("eve");
    story.publish(&eve, camera("cam"));
    story.event(&eve, EventKind::Speaker { level: 0.5, active: true });
    let mut before = story.look();
    before.0.clear();
    for by in [Connections::One, Connections::Two] {
        let request = JoinRequest { add_track_requests: vec![microphone("mic")], ..Default::default() };
        let ada = story.join_by(by, claims("ada"), request).unwrap();
        let seen = story.look();
        assert!(matches!(seen.first(&ada), Some(Response::Join(_))));
        let first = seen.0.iter().find(|output| matches!(output, Output::Signal { link, .. } if *link == ada.link));
        assert!(matches!(first, Some(Output::Signal { message: ToPeer::Message(_), .. })), "not even a token");
        story.event(&ada, EventKind::Connected);
        story.look();
        // While she is away much happens.
        story.hang_up(&ada);
        story.publish(&eve, microphone("mic"));
        story.event(&ada, EventKind::Answer { offer_id: 1, sdp: "v=0".into(), tracks: Vec::new() });
        let again = story.resume(&ada, "ada");
        let seen = story.look();
        let first = seen.0.iter().find(|output| matches!(output, Output::Signal { link, .. } if *link == again.link));
        let Some(Output::Signal { message: ToPeer::Message(message), .. }) = first else { panic!() };
        assert!(matches!(**message, Response::Reconnect(_)));
    }
}

#[test]
fn trap_08_a_socket_is_never_closed_by_us_without_a_leave_but_to_be_resumed() {
    use proto::simulate_scenario::Scenario;
    let simulate = |scenario| Ask::Simulate(proto::SimulateScenario { scenario: Some(scenario) });
    let closed_after_leave = |seen: &Seen, client: &Client| {
        let place = |is: &dyn Fn(&Output) -> bool| seen.0.iter().position(is);
        let left = place(&|output| {
            let Output::Signal { link, message: ToPeer::Message(message) } = output else { return false };
            *link == client.link && matches!(**message, Response::Leave(_))
        });
        let closed = place(&|output| matches!(output, Output::CloseLink(link) if *link == client.link));
        left.is_some() && left < closed
    };
    let mut story = Story::new();
    // Replaced, expelled, sent to start anew, and the end of the room.
    let ada = story.enter("ada");
    story.join("ada");
    assert!(closed_after_leave(&story.look(), &ada));
    let bob = story.enter("bob");
    story.room.expel(story.now, &"bob".into()).unwrap();
    assert!(closed_after_leave(&story.look(), &bob));
    for scenario in [Scenario::Migration(true), Scenario::ServerLeave(true)] {
        let eve = story.enter("eve");
        story.ask(&eve, simulate(scenario));
        assert!(closed_after_leave(&story.look(), &eve), "{scenario:?}");
    }
    let eve = story.enter("eve");
    story.ask(&eve, simulate(Scenario::SwitchCandidateProtocol(1)));
    let seen = story.look();
    assert!(seen.hangs_up(&eve) && seen.leave(&eve).is_none(), "after a Leave some would join anew");
    let ada = story.enter("ada");
    let _ = story.look();
    story.room.close(story.now, proto::DisconnectReason::ServerShutdown, Action::Reconnect);
    assert!(closed_after_leave(&story.look(), &ada));
}

#[test]
fn trap_10_a_clients_own_mute_is_never_told_back_stale() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let mic = story.publish(&ada, microphone("mic"));
    story.look();
    // Whatever else makes us speak of her, her own last word stands in it.
    for (turn, muted) in [true, false, true, false].into_iter().enumerate() {
        story.ask(&ada, Ask::Mute(proto::MuteTrackRequest { sid: mic.as_str().into(), muted }));
        let rename = proto::UpdateParticipantMetadata { name: format!("Ada {turn}"), ..Default::default() };
        story.ask(&ada, Ask::UpdateMetadata(rename));
        story.ask(&bob, Ask::Subscription(proto::UpdateSubscription::default()));
        story.publish(&ada, camera(&format!("cam {turn}")));
        let again = story.resume(&ada, "ada");
        let seen = story.look();
        for info in seen.updates(&ada).into_iter().chain(seen.updates(&again)).filter(|info| info.identity == "ada") {
            let told = info.tracks.iter().find(|track| track.sid == mic.as_str()).map(|track| track.muted);
            assert_eq!(told, Some(muted), "turn {turn}");
        }
        assert!(!seen.updates(&again).is_empty());
        story.hang_up(&again);
        story.room.resume(
            story.now,
            ada.link,
            claims("ada"),
            JoinRequest { reconnect: true, participant_sid: ada.sid.as_str().into(), ..Default::default() },
        );
        story.look();
    }
}

#[test]
fn trap_11_candidates_in_every_form_and_number_do_no_harm() {
    let mut story = Story::new();
    let ada = story.join("ada");
    story.look();
    let mdns = "candidate:1 1 udp 2113937151 5d2f4a3e-0b7c-4c64-a9d5-0ab9c7f0e2d1.local 52000 typ host";
    let v6 = "candidate:2 1 udp 2113937151 2001:db8::17 52001 typ host";
    let end = "";
    for candidate in [mdns, v6, v6, end, "nonsense"] {
        for init in [format!(r#"{{"candidate":"{candidate}","sdpMid":"0","sdpMLineIndex":0}}"#), candidate.to_owned()] {
            for target in [0, 1, 9] {
                let trickle = proto::TrickleRequest { candidate_init: init.clone(), target, r#final: candidate == end };
                story.ask(&ada, Ask::Trickle(trickle));
            }
        }
    }
    assert!(story.look().0.is_empty(), "an ICE-lite server has no use for them, before an offer or after");
}

#[test]
fn trap_12_farewells_name_identities_the_hidden_stay_so_doubles_go_and_rooms_end() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let mut hidden = claims("ghost");
    hidden.grants.hidden = true;
    let ghost = story.join_with(hidden, JoinRequest::default()).unwrap();
    story.look();
    let again = story.enter("bob");
    let farewell = |info: &&ParticipantInfo| info.state() == State::Disconnected;
    story.ask(&ghost, Ask::Leave(proto::LeaveRequest::default()));
    story.ask(&again, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    let told: Vec<_> = seen.updates(&ada).into_iter().filter(farewell).map(|info| info.identity.as_str()).collect();
    assert_eq!(told, ["bob"], "with an identity, and nothing of who was never seen");
    story.hang_up(&bob);
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    story.wait(Duration::from_secs(20));
    assert!(story.room.is_closed());
}
