//! Who asks: the access token of a request, and what it allows for an interview.

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{header, request::Parts},
};

use super::{App, error::ApiError};
use crate::{
    auth::{AuthError, Claims, bearer},
    id::Identity,
    interview::Interviews,
    model::Interview,
};

/// The claims of a valid token in `Authorization: Bearer`; the request is refused without one.
pub struct Bearer(pub Claims);

impl<S> FromRequestParts<S> for Bearer
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let refused = |error: AuthError| ApiError::unauthorized(sentence(&error.to_string()));
        let token = header.and_then(bearer).ok_or(AuthError::Missing).map_err(refused)?;
        App::from_ref(state).keys.verify(token).map(Self).map_err(refused)
    }
}

impl Bearer {
    /// The participant that the token makes its holder in this interview's room.
    pub fn participant_of(&self, interview: &Interview) -> Result<Identity, ApiError> {
        match (self.0.grants.joins(), self.0.identity()) {
            (Some(room), Some(identity)) if room == interview.room => Ok(identity),
            _ => Err(ApiError::new(
                axum::http::StatusCode::FORBIDDEN,
                "wrong_room",
                "This access token is for another room; use the token that you got for this interview.",
            )),
        }
    }

    /// Participants may read what they were part of, and so may a service with an API token. A room of the integrator's
    /// sees many interviews, so that a token for it alone does not tell of which one its holder was part.
    pub async fn may_read(&self, interviews: &Interviews, interview: &Interview) -> Result<(), ApiError> {
        if self.0.grants.room_list || self.may_administer(interview) {
            return Ok(());
        }
        let identity = self.participant_of(interview)?;
        if interview.has_own_room() || interviews.took_part(&interview.id, &identity).await? {
            return Ok(());
        }
        Err(ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            "not_your_interview",
            "You were not part of this interview: its room sees others too. Use the token of its interviewee or of \
             somebody who decided on consent or spoke in it, or one with `roomAdmin` for the room.",
        ))
    }

    /// Whether the token holds `roomAdmin` for this room, or for all where it names none.
    pub fn may_administer(&self, interview: &Interview) -> bool {
        let grants = &self.0.grants;
        grants.room_admin && (grants.room.is_empty() || grants.room == interview.room.as_str())
    }
}

/// With a capital letter in front and a full stop behind.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}
