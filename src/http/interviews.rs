//! REST of interviews: start one, come in by a link, give consent, read what was said.

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    App,
    bearer::{Bearer, sentence},
    error::ApiError,
};
use crate::{
    auth::{Claims, DEFAULT_TTL, Grants, bearer},
    id::{Identity, InterviewId, RoomName},
    interview::{ConsentError, InterviewError, NewInterview},
    model::{Interview, InterviewState, Personal, Purpose, ROLE_ATTRIBUTE, Role},
};

type Result<T> = std::result::Result<T, ApiError>;

pub fn router() -> Router<App> {
    Router::new()
        .route("/v1/practice", get(practice))
        .route("/v1/interviews", post(create))
        .route("/v1/interviews/{id}", get(status))
        .route("/v1/interviews/{id}/invite", get(invite))
        .route("/v1/interviews/{id}/join", post(join))
        .route("/v1/interviews/{id}/consents", get(consents).post(consent))
        .route("/v1/interviews/{id}/transcript", get(transcript))
        .route("/v1/interviews/{id}/turns", get(turns))
        .route("/v1/interviews/{id}/end", post(end))
}

/// A JSON body; an unfit one is told as a problem.
fn body<T: DeserializeOwned>(body: std::result::Result<Json<T>, JsonRejection>) -> Result<T> {
    Ok(body?.0)
}

/// What a practice interview can be made of.
async fn practice(State(app): State<App>) -> Json<Value> {
    let library = app.interviews.library();
    let plans: Vec<_> = library
        .plans()
        .iter()
        .map(|plan| {
            json!({
                "id": plan.id, "title": plan.title, "role": plan.role, "level": plan.level, "minutes": plan.minutes,
                "questions": plan.questions.len(),
            })
        })
        .collect();
    let personas: Vec<_> = library
        .personas()
        .iter()
        .map(|persona| json!({ "id": persona.id, "name": persona.name, "style": persona.style }))
        .collect();
    Json(json!({
        "plans": plans, "personas": personas, "recognition": app.interviews.recognition(), "voice": app.options.voice,
        "notice": notice_json(&app),
    }))
}

fn notice_json(app: &App) -> Value {
    let notice = app.interviews.notice();
    json!({ "version": notice.version, "ai": notice.ai, "kept": notice.kept })
}

#[derive(Deserialize)]
struct CreateBody {
    plan: String,
    persona: String,
    name: Personal,
}

#[derive(Serialize)]
struct Entry {
    room: RoomName,
    /// Empty: the address that this answer came from.
    url: String,
    token: String,
    identity: Identity,
}

#[derive(Serialize)]
struct CreatedBody {
    id: InterviewId,
    #[serde(flatten)]
    entry: Entry,
    invite_path: String,
}

async fn create(
    State(app): State<App>,
    headers: HeaderMap,
    new: std::result::Result<Json<CreateBody>, JsonRejection>,
) -> Result<Response> {
    if !app.options.public_practice {
        may_create(&app, &headers)?;
    }
    let CreateBody { plan, persona, name } = body(new)?;
    let created = app.interviews.create(NewInterview { plan, persona, interviewee_name: name.clone() }).await?;
    let interview = created.interview;
    let entry = entry(&app, &interview, &interview.interviewee, &name, Role::Interviewee)?;
    let location = format!("/v1/interviews/{}", interview.id);
    let invite_path = format!("/join/{}?invite={}", interview.id, created.invite);
    let body = CreatedBody { id: interview.id, entry, invite_path };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

fn may_create(app: &App, headers: &HeaderMap) -> Result<()> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = header.and_then(bearer) else {
        return Err(ApiError::unauthorized(
            "Practice interviews are not open to everybody on this server: send an access token with the grant \
             `roomCreate`, or let its operator set interview.public_practice.",
        ));
    };
    let claims = app.keys.verify(token).map_err(|error| ApiError::unauthorized(sentence(&error.to_string())))?;
    match claims.grants.room_create {
        true => Ok(()),
        false => Err(ApiError::forbidden("This access token lacks the grant `roomCreate`; mint one that has it.")),
    }
}

/// A participant's token, good over a restart of the server for as long as a long day of interviews.
fn entry(app: &App, interview: &Interview, identity: &Identity, name: &Personal, role: Role) -> Result<Entry> {
    let role = match role {
        Role::Interviewee => "interviewee",
        Role::Interviewer | Role::Ai => "interviewer",
    };
    let claims = Claims::new(identity, Grants::participant(&interview.room))
        .with_name(name.0.trim())
        .with_attribute(ROLE_ATTRIBUTE, role);
    let token = app.keys.mint(claims, DEFAULT_TTL).map_err(|error| ApiError::internal(&error))?;
    let url = app.options.public_url.clone();
    Ok(Entry { room: interview.room.clone(), url, token, identity: identity.clone() })
}

#[derive(Deserialize)]
struct InviteQuery {
    #[serde(default)]
    invite: String,
}

async fn invite(
    State(app): State<App>,
    Path(id): Path<InterviewId>,
    Query(query): Query<InviteQuery>,
) -> Result<Json<Value>> {
    let view = app.interviews.invite(&id, &query.invite).await?;
    Ok(Json(json!({
        "interviewee_waiting": view.interviewee_waiting, "plan_title": view.plan_title, "notice": notice_json(&app),
    })))
}

#[derive(Deserialize)]
struct JoinBody {
    invite: String,
    name: Personal,
}

async fn join(
    State(app): State<App>,
    Path(id): Path<InterviewId>,
    asked: std::result::Result<Json<JoinBody>, JsonRejection>,
) -> Result<Json<Entry>> {
    let JoinBody { invite, name } = body(asked)?;
    let admission = app.interviews.admit(&id, &invite, &name.0).await?;
    entry(&app, &admission.interview, &admission.identity, &name, admission.role).map(Json)
}

#[derive(Deserialize)]
struct ConsentBody {
    purpose: String,
    granted: bool,
    #[serde(default)]
    notice_version: String,
}

/// Versions are short; this is stored for good.
const NOTICE_VERSION_CHARS_MAX: usize = 64;

async fn consent(
    State(app): State<App>,
    Path(id): Path<InterviewId>,
    bearer: Bearer,
    headers: HeaderMap,
    decision: std::result::Result<Json<ConsentBody>, JsonRejection>,
) -> Result<StatusCode> {
    let interview = app.interviews.status(&id).await?;
    let identity = bearer.participant_of(&interview)?;
    // A decision on record lets its person read; one made afterwards must not.
    if interview.state == InterviewState::Ended {
        bearer.may_read(&app.interviews, &interview).await?;
    }
    let decision = body(decision)?;
    let purpose: Purpose = decision.purpose.parse().map_err(|error: String| ApiError::invalid(sentence(&error)))?;
    if decision.notice_version.chars().count() > NOTICE_VERSION_CHARS_MAX {
        return Err(ApiError::invalid("`notice_version` is too long: send the version that the notice came with."));
    }
    // Browsers add this header and pages cannot; a program may, and would only misstate how it asked.
    let source = if headers.contains_key("sec-fetch-site") { "page" } else { "rest" };
    app.interviews.record_consent(&id, &identity, purpose, decision.granted, &decision.notice_version, source).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn consents(State(app): State<App>, Path(id): Path<InterviewId>, bearer: Bearer) -> Result<Json<Value>> {
    let interview = app.interviews.status(&id).await?;
    let identity = bearer.participant_of(&interview)?;
    let records = app.interviews.consents(&id, &identity).await?;
    let own = records.iter().map(|one| json!({ "purpose": one.purpose, "granted": one.granted, "at_ms": one.at_ms }));
    Ok(Json(own.collect()))
}

async fn status(State(app): State<App>, Path(id): Path<InterviewId>, bearer: Bearer) -> Result<Json<Interview>> {
    let interview = app.interviews.status(&id).await?;
    bearer.may_read(&app.interviews, &interview).await?;
    Ok(Json(interview))
}

async fn transcript(State(app): State<App>, Path(id): Path<InterviewId>, bearer: Bearer) -> Result<Json<Value>> {
    let interview = app.interviews.status(&id).await?;
    bearer.may_read(&app.interviews, &interview).await?;
    let lines = app.interviews.transcript(&id).await?;
    Ok(Json(json!({ "interview": interview, "lines": lines })))
}

async fn turns(State(app): State<App>, Path(id): Path<InterviewId>, bearer: Bearer) -> Result<Json<Value>> {
    let interview = app.interviews.status(&id).await?;
    bearer.may_read(&app.interviews, &interview).await?;
    let turns = app.interviews.turns(&id).await?;
    Ok(Json(json!({ "turns": turns })))
}

async fn end(State(app): State<App>, Path(id): Path<InterviewId>, bearer: Bearer) -> Result<StatusCode> {
    let interview = app.interviews.status(&id).await?;
    if !bearer.may_administer(&interview) {
        bearer.participant_of(&interview)?;
        let role = bearer.0.attributes.get(ROLE_ATTRIBUTE).map(String::as_str);
        if !matches!(role, Some("interviewee" | "interviewer")) {
            return Err(ApiError::forbidden(
                "Only the interviewee, an interviewer or a token with `roomAdmin` can end an interview.",
            ));
        }
    }
    app.interviews.end(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<InterviewError> for ApiError {
    fn from(error: InterviewError) -> Self {
        let (status, code) = match &error {
            InterviewError::UnknownPlan(_) => (StatusCode::BAD_REQUEST, "unknown_plan"),
            InterviewError::UnknownPersona(_) => (StatusCode::BAD_REQUEST, "unknown_persona"),
            InterviewError::BadName(_) => (StatusCode::BAD_REQUEST, "bad_name"),
            InterviewError::BadMetadata(_) => (StatusCode::BAD_REQUEST, "bad_metadata"),
            InterviewError::RoomTaken => (StatusCode::CONFLICT, "room_taken"),
            InterviewError::NotFound => (StatusCode::NOT_FOUND, "interview_not_found"),
            InterviewError::BadInvite => (StatusCode::FORBIDDEN, "bad_invite"),
            InterviewError::Ended => (StatusCode::GONE, "interview_ended"),
            InterviewError::ShuttingDown | InterviewError::Room(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            InterviewError::Consent(ConsentError::NoticeChanged) => (StatusCode::CONFLICT, "notice_changed"),
            InterviewError::Consent(ConsentError::TooOften) => (StatusCode::TOO_MANY_REQUESTS, "too_many_changes"),
            InterviewError::Consent(ConsentError::NotStored) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            InterviewError::Store(_) => return Self::internal(&error),
        };
        Self::new(status, code, sentence(&error.to_string()))
    }
}
