//! `livekit.AgentDispatchService`: which agents are wanted in a room.

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use livekit_protocol as proto;

use super::{App, Call, Code, TwirpError};
use crate::{
    agents::{Agents, AgentsError},
    auth::RoomAgent,
    id::{DispatchId, RoomName},
    interview::InterviewError,
};

type Result<T> = std::result::Result<T, TwirpError>;

pub async fn serve(
    State(app): State<App>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let call = Call::new(&app, &headers, body)?;
    match method.as_str() {
        "CreateDispatch" => create(&call, &app.agents).await,
        "DeleteDispatch" => delete(&call, &app.agents).await,
        "ListDispatch" => list(&call, &app.agents).await,
        _ => Err(TwirpError::new(Code::BadRoute, "there is no such method")),
    }
}

async fn create(call: &Call, agents: &Agents) -> Result<Response> {
    let request: proto::CreateAgentDispatchRequest = call.read()?;
    call.administers(&request.room)?;
    let agent =
        RoomAgent { agent_name: request.agent_name, metadata: request.metadata, attributes: request.attributes };
    call.write(&agents.create_dispatch(&RoomName::from(request.room), agent, &call.claims.iss).await?)
}

async fn delete(call: &Call, agents: &Agents) -> Result<Response> {
    let request: proto::DeleteAgentDispatchRequest = call.read()?;
    call.administers(&request.room)?;
    let id = DispatchId::from(request.dispatch_id);
    call.write(&agents.delete_dispatch(&RoomName::from(request.room), &id).await?)
}

async fn list(call: &Call, agents: &Agents) -> Result<Response> {
    let request: proto::ListAgentDispatchRequest = call.read()?;
    call.administers(&request.room)?;
    let mut agent_dispatches = agents.dispatches(&RoomName::from(request.room)).await?;
    agent_dispatches.retain(|dispatch| request.dispatch_id.is_empty() || dispatch.id == request.dispatch_id);
    call.write(&proto::ListAgentDispatchResponse { agent_dispatches })
}

impl From<AgentsError> for TwirpError {
    fn from(error: AgentsError) -> Self {
        let code = match &error {
            AgentsError::TooLarge(_) => Code::InvalidArgument,
            AgentsError::TooManyDispatches | AgentsError::TooManyWorkers => Code::ResourceExhausted,
            AgentsError::NoDispatch => Code::NotFound,
            AgentsError::ShuttingDown => Code::Unavailable,
            AgentsError::Interview(error) => match error {
                InterviewError::BadMetadata(_)
                | InterviewError::UnknownPlan(_)
                | InterviewError::UnknownPersona(_)
                | InterviewError::BadName(_) => Code::InvalidArgument,
                InterviewError::RoomTaken => Code::FailedPrecondition,
                InterviewError::ShuttingDown => Code::Unavailable,
                _ => Code::Internal,
            },
            AgentsError::Room(_) => Code::NotFound,
        };
        match error {
            AgentsError::Room(error) => error.into(),
            error => Self::new(code, error.to_string()),
        }
    }
}

/// The agents of a request, as we keep them.
pub(super) fn wanted(agents: Vec<proto::RoomAgentDispatch>) -> Vec<RoomAgent> {
    let keep = |agent: proto::RoomAgentDispatch| RoomAgent {
        agent_name: agent.agent_name,
        metadata: agent.metadata,
        attributes: agent.attributes,
    };
    agents.into_iter().map(keep).collect()
}
