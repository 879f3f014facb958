//! What a person is told before they consent. The version is part of the consent record: change it with the texts.

/// Version of the texts below, before what [`Notice::new`] adds for services outside.
const VERSION: &str = "2026-11-2";
/// For [`crate::model::Purpose::AiInterviewer`].
const AI: &str = "You will talk with an AI interviewer. It speaks with a synthetic voice and listens to your \
    microphone to take turns and to understand your answers. It does not watch your camera, and it gives no scores. You \
    can withdraw at any time: it stops listening within a second.";
const RECOGNISER: &str =
    " To be understood, your voice is sent to a recognition service that this server's operator chose.";
const MODEL: &str =
    " To word its replies, what you say is sent as text to a language model that this server's operator chose.";
/// For [`crate::model::Purpose::Transcription`].
const KEPT: &str = "What you say is kept as text with your name, together with the interviewer's words and the times \
    of each turn. No audio or video is recorded. Without this consent your words are shown as captions and forgotten.";

/// The notice as this server has to give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub version: String,
    pub ai: String,
    pub kept: &'static str,
}

impl Notice {
    /// `recogniser`: voices are sent to a service; `model`: words are sent to a language model.
    pub fn new(recogniser: bool, model: bool) -> Self {
        let mut notice = Self { version: VERSION.into(), ai: AI.into(), kept: KEPT };
        for (used, text, mark) in [(recogniser, RECOGNISER, "+recogniser"), (model, MODEL, "+model")] {
            if used {
                notice.ai.push_str(text);
                notice.version.push_str(mark);
            }
        }
        notice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_sent_somewhere_is_told_and_the_version_shows_which_text_it_was() {
        let plain = Notice::new(false, false);
        assert!(!plain.ai.contains("sent"));
        let all = Notice::new(true, true);
        assert!(all.ai.contains("recognition service") && all.ai.contains("language model"));
        let versions = [plain, all, Notice::new(true, false), Notice::new(false, true)].map(|notice| notice.version);
        assert_eq!(std::collections::HashSet::from(versions).len(), 4);
    }
}
