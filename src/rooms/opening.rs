//! What rooms are made with, and who is told of what happens in them.

use livekit_protocol as proto;
use tokio::sync::mpsc;

use super::{RoomError, RoomOptions, hooks::HookSender};
use crate::{
    auth::{Claims, RoomAgent, RoomConfig, check_agents},
    telemetry::Metrics,
};

/// What a room is made with.
#[derive(Clone, Debug, Default)]
pub struct RoomSetup {
    pub options: RoomOptions,
    /// Agents that are sent in with the making.
    pub agents: Vec<RoomAgent>,
    /// Whether agents that come to every room stay out of this one.
    pub reserved: bool,
}

/// What those are told who send agents into rooms. Of one room it comes in order.
#[derive(Debug)]
pub enum RoomNews {
    /// A room was made: the first that is said of it.
    Opened { room: Box<proto::Room>, agents: Vec<RoomAgent>, reserved: bool },
    /// As webhooks are told it.
    Event(Box<proto::WebhookEvent>),
}

/// Where news of rooms goes.
pub type NewsSender = mpsc::Sender<RoomNews>;

/// Who is told what happens in rooms, if anybody is. A room waits for neither.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    pub hooks: Option<HookSender>,
    pub news: Option<NewsSender>,
}

impl Listeners {
    pub(super) fn tell_opened(&self, room: proto::Room, setup: RoomSetup) {
        self.tell_news(RoomNews::Opened { room: Box::new(room), agents: setup.agents, reserved: setup.reserved });
    }

    /// Where webhooks are behind, this event is not told to them.
    pub(super) fn tell_event(&self, event: Box<proto::WebhookEvent>, metrics: &Metrics) {
        if self.news.is_some() {
            self.tell_news(RoomNews::Event(event.clone()));
        }
        let Some(hooks) = &self.hooks else { return };
        if let Err(mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) =
            hooks.try_send(event)
        {
            metrics.webhooks.with_label_values(&[event.event.as_str(), "dropped"]).inc();
        }
    }

    fn tell_news(&self, news: RoomNews) {
        let Some(sender) = &self.news else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(news) {
            tracing::warn!("those who send agents are behind; news of a room is dropped");
        }
    }
}

impl RoomSetup {
    /// What a join with this token makes a room with.
    pub(super) fn of_token(claims: &Claims) -> Result<Self, RoomError> {
        if !claims.room_preset.is_empty() {
            return Err(RoomError::UnknownPreset);
        }
        let Some(config) = &claims.room_config else { return Ok(Self::default()) };
        check_agents(&config.agents).map_err(RoomError::BadConfig)?;
        Ok(Self { options: config.into(), agents: config.agents.clone(), reserved: false })
    }
}

impl From<&RoomConfig> for RoomOptions {
    fn from(config: &RoomConfig) -> Self {
        let secs = |value: u32| (value > 0).then_some(u64::from(value));
        Self {
            empty_timeout_secs: secs(config.empty_timeout),
            departure_timeout_secs: secs(config.departure_timeout),
            max_participants: (config.max_participants > 0).then_some(config.max_participants as usize),
            metadata: (!config.metadata.is_empty()).then(|| config.metadata.clone()),
        }
    }
}
