//! Workers of agents over a real socket, and the dispatches that send their agents into rooms.

mod whole;

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::{JobStatus, server_message::Message as Told, worker_message::Message as Said};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message as Frame},
};
use viva::{
    agents::{Agents, ToWorker},
    auth::{ApiKeys, Claims, DEFAULT_TTL, Grants},
    http::App,
    interview::Interviews,
    rooms::Rooms,
    store::Store,
    telemetry::Metrics,
};
use whole::{Parts, Whole, whole};

/// Longest that anything here may take; a busy machine makes a test slow, not red.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: String,
    keys: Arc<ApiKeys>,
    agents: Agents,
    rooms: Rooms,
    interviews: Interviews,
    store: Store,
    hooks: mpsc::Receiver<Box<proto::WebhookEvent>>,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

struct Worker {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    json: bool,
}

impl Server {
    async fn start() -> Self {
        let (sender, hooks) = mpsc::channel(1024);
        let Whole { app, router, folder } = whole(Parts { hooks: Some(sender), ..Parts::default() }).await;
        let App { agents, interviews, rooms, store, keys, metrics, .. } = app;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, keys, agents, rooms, interviews, store, hooks, metrics, _folder: folder }
    }

    fn token(&self, grants: Grants) -> String {
        self.keys.mint(Claims::new(&"service".into(), grants), DEFAULT_TTL).expect("there is a key")
    }

    fn admin(&self, room: &str) -> String {
        self.token(Grants { room_admin: true, room_create: true, room: room.into(), ..Grants::default() })
    }

    async fn connect(&self, json: bool) -> Worker {
        let token = self.token(Grants { agent: true, ..Grants::default() });
        let url = format!("ws://{}/agent?access_token={token}", self.address);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("let in");
        Worker { socket, json }
    }

    /// A worker that is registered under this name.
    async fn worker(&self, agent_name: &str, json: bool) -> Worker {
        let mut worker = self.connect(json).await;
        let allowed_permissions =
            Some(proto::ParticipantPermission { can_publish: true, hidden: true, ..Default::default() });
        let agent_name = agent_name.to_owned();
        worker
            .says(Said::Register(proto::RegisterWorkerRequest {
                agent_name,
                allowed_permissions,
                ..Default::default()
            }))
            .await;
        let Told::Register(response) = worker.hears().await else { panic!("the first message is the registration") };
        assert!(response.worker_id.starts_with("AW_"));
        let info = response.server_info.expect("says who it is");
        assert!(!info.version.is_empty() && info.agent_protocol > 0);
        worker
    }

    /// Calls the server API in JSON; the status and the answer.
    async fn call(&self, method: &str, token: &str, body: Value) -> (u16, Value) {
        let body = body.to_string();
        let request = format!(
            "POST /twirp/livekit.{method} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = TcpStream::connect(&self.address).await.expect("is up");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("answers");
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}")))
    }

    /// Waits until webhooks are told this.
    async fn hook(&mut self, name: &str) -> proto::WebhookEvent {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.hooks.recv()).await.expect(name).expect("open");
            if event.event == name {
                return *event;
            }
        }
    }

    async fn refusal(&self, token: &str) -> (u16, String) {
        let url = format!("ws://{}/agent?access_token={token}", self.address);
        match tokio_tungstenite::connect_async(url).await {
            Err(tungstenite::Error::Http(response)) => {
                let text = String::from_utf8(response.body().clone().unwrap_or_default()).unwrap();
                (response.status().as_u16(), text)
            }
            other => panic!("was not refused: {:?}", other.map(drop)),
        }
    }
}

impl Worker {
    async fn says(&mut self, message: Said) {
        let message = proto::WorkerMessage { message: Some(message) };
        let frame = match self.json {
            true => Frame::Text(serde_json::to_string(&message).unwrap().into()),
            false => Frame::Binary(message.encode_to_vec().into()),
        };
        self.socket.send(frame).await.expect("sent");
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            match tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("in time") {
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                Some(Ok(frame)) => return Some(frame),
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn hears(&mut self) -> Told {
        let message = match self.frame().await {
            Some(Frame::Binary(bytes)) if !self.json => proto::ServerMessage::decode(bytes).expect("protobuf"),
            Some(Frame::Text(text)) if self.json => serde_json::from_str(&text).expect("JSON"),
            other => panic!("{other:?}"),
        };
        message.message.expect("says something")
    }

    async fn takes(&mut self) -> (proto::Job, proto::JobAssignment) {
        let Told::Availability(request) = self.hears().await else { panic!("is not asked") };
        let job = request.job.expect("a job");
        let answer = proto::AvailabilityResponse { job_id: job.id.clone(), available: true, ..Default::default() };
        self.says(Said::Availability(answer)).await;
        let Told::Assignment(assignment) = self.hears().await else { panic!("does not get it") };
        (job, assignment)
    }
}

#[tokio::test]
async fn a_worker_registers_gets_a_job_and_is_told_when_it_is_over() {
    for json in [false, true] {
        let mut server = Server::start().await;
        let mut worker = server.worker("echo", json).await;
        worker.says(Said::Ping(proto::WorkerPing { timestamp: 5 })).await;
        assert!(matches!(worker.hears().await, Told::Pong(pong) if pong.last_timestamp == 5));

        let admin = server.admin("room");
        let asked = json!({ "room": "room", "agent_name": "echo", "metadata": "m", "attributes": {"a": "b"} });
        let (status, dispatch) = server.call("AgentDispatchService/CreateDispatch", &admin, asked).await;
        assert_eq!((status, dispatch["agentName"].as_str()), (200, Some("echo")), "{dispatch}");
        let (job, assignment) = worker.takes().await;
        assert_eq!((job.metadata.as_str(), job.attributes["a"].as_str()), ("m", "b"));
        assert_eq!(job.room.as_ref().map(|room| room.name.as_str()), Some("room"));
        let claims = server.keys.verify(&assignment.token).expect("a good token");
        assert_eq!((claims.kind.as_str(), claims.sub), ("agent", format!("agent-{}", job.id)));
        assert!(claims.grants.joins() == Some("room".into()) && claims.grants.agent && claims.grants.hidden);
        assert!(claims.grants.can_publish() && !claims.grants.can_subscribe());

        let update = proto::UpdateJobStatus { job_id: job.id.clone(), status: 1, ..Default::default() };
        worker.says(Said::UpdateJob(update)).await;
        let hook = server.hook("agent_job_started").await;
        let told = hook.job.expect("the job");
        assert_eq!((told.id.as_str(), told.state.unwrap().status()), (job.id.as_str(), JobStatus::JsRunning));
        let (_, listed) = server.call("AgentDispatchService/ListDispatch", &admin, json!({ "room": "room" })).await;
        let told = &listed["agentDispatches"][0]["state"]["jobs"][0];
        assert_eq!(
            (told["id"].as_str(), told["state"]["status"].as_str()),
            (Some(job.id.as_str()), Some("JS_RUNNING"))
        );
        assert!(server.metrics.render().contains("viva_agent_jobs{state=\"running\"} 1"));

        let (status, _) = server.call("RoomService/DeleteRoom", &admin, json!({ "room": "room" })).await;
        assert_eq!(status, 200);
        assert!(matches!(worker.hears().await, Told::Termination(end) if end.job_id == job.id));
        server.hook("agent_job_ended").await;
        assert!(server.metrics.render().contains("viva_agent_jobs{state=\"running\"} 0"));
    }
}

#[tokio::test]
async fn agents_come_with_the_making_of_a_room_and_with_every_room() {
    let server = Server::start().await;
    let mut named = server.worker("echo", false).await;
    let mut unnamed = server.worker("", false).await;
    let admin = server.admin("room");
    let asked =
        json!({ "name": "room", "metadata": "of the room", "agents": [{ "agentName": "echo", "metadata": "m" }] });
    for _ in 0..2 {
        // The second time the room is there, and gets no second agent.
        let (status, room) = server.call("RoomService/CreateRoom", &admin, asked.clone()).await;
        assert_eq!(status, 200, "{room}");
    }
    let (job, _) = named.takes().await;
    assert_eq!((job.metadata.as_str(), job.room.unwrap().metadata.as_str()), ("m", "of the room"));
    let (job, _) = unnamed.takes().await;
    assert_eq!((job.agent_name.as_str(), job.room.unwrap().name.as_str()), ("", "room"));
    let (_, listed) = server.call("AgentDispatchService/ListDispatch", &admin, json!({ "room": "room" })).await;
    assert_eq!(listed["agentDispatches"].as_array().map(Vec::len), Some(2), "{listed}");

    // A practice interview holds whom the interview let in.
    let practice = server.rooms.list().len();
    let (created, _) = {
        let body = json!({ "plan": "backend-engineer", "persona": "ada", "name": "Sam" }).to_string();
        let request = format!(
            "POST /v1/interviews HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = TcpStream::connect(&server.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        (answer.starts_with("HTTP/1.1 201"), answer)
    };
    assert!(created && server.rooms.list().len() == practice + 1);
    server.call("RoomService/CreateRoom", &server.admin("after"), json!({ "name": "after" })).await;
    let (job, _) = unnamed.takes().await;
    assert_eq!(job.room.unwrap().name, "after", "the interview's room was passed over");
}

#[tokio::test]
async fn a_job_whose_agent_can_get_no_token_has_failed() {
    let server = Server::start().await;
    // Its key is not among the server's.
    let mut link = server.agents.connect("gone".into()).await.expect("there is a place");
    let says = |message| proto::WorkerMessage { message: Some(message) };
    let registration = proto::RegisterWorkerRequest { agent_name: "echo".into(), ..Default::default() };
    link.send(says(Said::Register(registration))).await;
    let asked = json!({ "room": "room", "agentName": "echo" });
    let (status, _) = server.call("AgentDispatchService/CreateDispatch", &server.admin("room"), asked).await;
    assert_eq!(status, 200);
    let job = loop {
        match tokio::time::timeout(PATIENCE, link.outbound.recv()).await.expect("in time").expect("open") {
            ToWorker::Message(message) => match message.message {
                Some(Told::Availability(request)) => break request.job.expect("a job"),
                _ => continue,
            },
            ToWorker::Close(reason) => panic!("{reason}"),
        }
    };
    let answer = proto::AvailabilityResponse { job_id: job.id, available: true, ..Default::default() };
    link.send(says(Said::Availability(answer))).await;
    let dispatches = server.agents.dispatches(&"room".into()).await.expect("there is the room");
    let state = dispatches[0].state.as_ref().expect("a state").jobs[0].state.clone().expect("a state");
    assert_eq!(state.status(), JobStatus::JsFailed);
    assert!(state.error.contains("token"), "{}", state.error);
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_with_the_reason() {
    let server = Server::start().await;
    let (status, text) = server.refusal(&server.token(Grants::participant(&"room".into()))).await;
    assert!(status == 403 && text.contains("`agent`"), "{status} {text}");
    assert_eq!(server.refusal("nonsense").await.0, 401);

    for (grants, status) in [
        (Grants { room_admin: true, room: "other".into(), ..Grants::default() }, 403),
        (Grants::participant(&"room".into()), 403),
    ] {
        let asked = json!({ "room": "room", "agentName": "echo" });
        let answer = server.call("AgentDispatchService/CreateDispatch", &server.token(grants), asked).await;
        assert_eq!(answer.0, status, "{}", answer.1);
    }
    let admin = server.admin("room");
    for (method, body, status, code) in [
        ("AgentDispatchService/ListDispatch", json!({ "room": "room" }), 404, "not_found"),
        ("AgentDispatchService/DeleteDispatch", json!({ "room": "room", "dispatchId": "x" }), 404, "not_found"),
        ("AgentDispatchService/Nonsense", json!({}), 404, "bad_route"),
        (
            "AgentDispatchService/CreateDispatch",
            json!({ "room": "room", "agentName": "e", "metadata": "m".repeat(65 * 1024) }),
            400,
            "invalid_argument",
        ),
        (
            "AgentDispatchService/CreateDispatch",
            json!({ "room": "room", "agentName": "viva-interviewer", "metadata": "{}" }),
            400,
            "invalid_argument",
        ),
        ("RoomService/CreateRoom", json!({ "name": "room", "roomPreset": "big" }), 400, "invalid_argument"),
        (
            "RoomService/CreateRoom",
            json!({ "name": "room", "agents": [{ "agentName": "viva-interviewer", "metadata": "nonsense" }] }),
            400,
            "invalid_argument",
        ),
    ] {
        let (got, answer) = server.call(method, &admin, body).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{method}: {answer}");
    }
    assert!(server.rooms.list().is_empty(), "what was refused made no room");
}

#[tokio::test]
async fn sockets_end_where_the_worker_errs_and_when_the_server_stops() {
    let server = Server::start().await;
    let mut worker = server.connect(false).await;
    worker.socket.send(Frame::Binary(vec![0xff; 9].into())).await.unwrap();
    assert!(matches!(worker.frame().await, Some(Frame::Close(Some(_)))));
    let mut worker = server.connect(false).await;
    worker.says(Said::UpdateWorker(proto::UpdateWorkerStatus::default())).await;
    let Some(Frame::Close(Some(close))) = worker.frame().await else { panic!("is not closed") };
    assert!(close.reason.contains("registration"), "{close}");
    let mut worker = server.worker("echo", false).await;
    server.agents.shutdown().await;
    let Some(Frame::Close(Some(close))) = worker.frame().await else { panic!("is not closed") };
    assert!(close.reason.contains("shutting down"), "{close}");
    let token = server.token(Grants { agent: true, ..Grants::default() });
    assert_eq!(server.refusal(&token).await.0, 503);
}

#[tokio::test]
async fn an_interview_by_dispatch_ends_with_its_dispatch_and_goes_on_after_a_restart() {
    let mut server = Server::start().await;
    let metadata = json!({ "plan": "backend-engineer" }).to_string();
    for room in ["deleted", "restarted"] {
        let admin = server.admin(room);
        let asked = json!({ "room": room, "agentName": "viva-interviewer", "metadata": metadata });
        let (status, dispatch) = server.call("AgentDispatchService/CreateDispatch", &admin, asked).await;
        assert_eq!(status, 200, "{dispatch}");
        server.hook("agent_job_started").await;
        assert_eq!(server.store.unfinished().await.unwrap().len(), 1, "{room}");
        if room == "deleted" {
            let asked = json!({ "room": room, "dispatchId": dispatch["id"] });
            assert_eq!(server.call("AgentDispatchService/DeleteDispatch", &admin, asked).await.0, 200);
            while server.hook("participant_left").await.room.expect("a room").name != room {}
            assert!(server.store.unfinished().await.unwrap().is_empty());
        }
    }
    // The server stops. Agents hear that the session ended and that the room closed, in either order; here is the other
    // than the usual one: the room's news come first, and call off the dispatch.
    let interview = server.store.unfinished().await.unwrap().pop().expect("it runs");
    server.interviews.shutdown().await;
    server.interviews.end_dispatched(&interview.id).await.unwrap();
    server.rooms.shutdown().await;
    server.agents.shutdown().await;
    server.hook("agent_job_ended").await;
    let left = server.store.unfinished().await.unwrap();
    assert_eq!(left.iter().map(|left| &left.id).collect::<Vec<_>>(), [&interview.id]);
}
