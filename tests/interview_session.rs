//! Whole interviews, as those who take part and those who read the record notice them.

mod interview_harness;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use interview_harness::{Stage, WORD, config};
use tokio::sync::mpsc;
use viva::{
    interview::llm::{LlmProvider, Prompt},
    model::{ConsentRecord, EndReason, InterviewState, Personal, Purpose, Role},
    speech::{ProviderError, ProviderErrorKind},
};

const ALL: &str = "ai_interviewer,transcription";
const LONG: &str = "I built the billing service with two colleagues and I ran it for three years on my own so that I know \
    quite well how it behaves under load and at night";

#[tokio::test]
async fn an_interview_from_the_greeting_to_the_goodbye() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    sam.says("A cache.").await;
    stage.hears("Could you tell me more about your own part in it?").await;
    sam.says(LONG).await;
    stage.hears(&stage.question(1)).await;
    sam.says("Sorry, could you repeat that?").await;
    stage.hears(&format!("Of course. {}", stage.question(1))).await;
    sam.says("I don't know, next question please.").await;
    stage.hears(&stage.question(2)).await;
    for n in 3..=5 {
        sam.says(LONG).await;
        stage.hears(&stage.question(n)).await;
    }
    sam.says("How large is the team?").await;
    stage.hears("Is there anything else?").await;
    sam.says("No, that's all.").await;
    stage.attribute("viva.ended", "completed").await;

    let interview = stage.interview().await;
    assert_eq!((interview.state, interview.end_reason), (InterviewState::Ended, Some(EndReason::Completed)));
    assert_eq!(interview.questions_asked, 6);
    let lines = stage.lines().await;
    assert!(lines.windows(2).all(|w| w[0].seq < w[1].seq && w[0].start_ms <= w[1].start_ms));
    assert_eq!(lines[0].role, Role::Ai);
    assert!(lines[0].text.0.starts_with("Hello Sam, my name is Ada.") && lines[0].text.0.ends_with(&stage.question(0)));
    assert_eq!(lines[1].text.0, "A cache.");
    assert_eq!(lines[1].question_id.as_deref(), Some("system"));
    assert_eq!(lines.last().unwrap().role, Role::Ai);
    let acts: Vec<_> = stage.turns().await.into_iter().map(|t| t.act).collect();
    assert_eq!(acts, ["greet", "probe", "ask", "repeat", "ask", "ask", "ask", "ask", "probe", "close"]);
    for turn in &stage.turns().await[1..] {
        let times = &turn.times;
        let endpoint = times.endpoint_us.unwrap();
        assert!(endpoint >= 40_000, "{endpoint}");
        assert!(times.stt_final_us.is_some() && times.llm_first_token_us.is_none());
        assert!(times.first_clause_us.unwrap() >= endpoint);
        assert!(times.first_packet_us.unwrap() >= times.tts_first_audio_us.unwrap());
    }
    let metrics = stage.metrics.render();
    for line in [
        "viva_response_latency_seconds_count 9",
        "viva_turn_endpointing_delay_seconds_count{detector=\"words\"} 9",
        "viva_turns_total{act=\"ask\"} 5",
        "viva_interviews_total{result=\"completed\"} 1",
        "viva_interviews_active 0",
        "viva_consents_total{decision=\"granted\",purpose=\"ai_interviewer\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    tokio::time::timeout(Duration::from_secs(10), stage.session).await.unwrap().unwrap();
    assert!(stage.seen.lock().unwrap().left);
}

#[tokio::test]
async fn captions_show_both_sides() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    sam.begins();
    sam.partial("I built");
    sam.ends("I built a cache.");
    stage.hears("own part").await;
    let captions = stage.captions();
    let of_sam: Vec<_> = captions.iter().filter(|c| c.0 == "sam").map(|c| (c.1.as_str(), c.2)).collect();
    assert_eq!(of_sam, [("I built", false), ("I built a cache.", true)]);
    // The interviewer's grow while it speaks and are then replaced by what was heard.
    let greeting: Vec<_> = captions.iter().filter(|c| c.1.starts_with("Hello Sam")).collect();
    assert_eq!(greeting.iter().map(|c| c.2).collect::<Vec<_>>(), [false, true]);
    assert_eq!(greeting[0].1, greeting[1].1);
}

#[tokio::test]
async fn without_consent_nobody_listens_and_nothing_is_asked() {
    let mut stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", "").await;
    stage.attribute("viva.waiting", "consent").await;
    stage.attribute("lk.agent.state", "idle").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(stage.seen.lock().unwrap().taps.is_empty());
    assert!(stage.captions().is_empty());

    let answer = stage.rpc("sam", "viva.consent", r#"{"purpose":"ai_interviewer","granted":true}"#).await;
    assert_eq!(answer.unwrap(), r#"{"ok":true}"#);
    stage.hears(&stage.question(0)).await;
    stage.attribute("viva.waiting", "").await;
    // Captions, but no record: that was not consented to.
    sam.says(LONG).await;
    stage.hears(&stage.question(1)).await;
    assert!(stage.captions().iter().any(|c| c.0 == "sam" && c.1 == LONG && c.2));
    assert!(stage.lines().await.iter().all(|l| l.role == Role::Ai));
}

#[tokio::test]
async fn withdrawing_closes_the_tap_and_silences_the_interviewer() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.state("speaking").await;
    stage.consents("sam", Purpose::AiInterviewer, false).await;
    assert_eq!(stage.seen.lock().unwrap().taps.last().unwrap(), &("sam".to_owned(), false));
    stage.attribute("viva.waiting", "consent").await;
    stage.state("idle").await;
    sam.says("This is not to be heard.").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(stage.captions().iter().all(|c| c.0 != "sam"));
    assert!(stage.transcript().await.iter().all(|l| !l.starts_with("sam")));
    let latest = stage.store.latest_consents(&stage.id, &"sam".into()).await.unwrap();
    assert_eq!(latest.iter().map(|c| c.granted).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_withdrawal_is_not_undone_by_joining_again_with_the_token() {
    let stage = Stage::new().await;
    stage.joins("sam", "interviewee", ALL).await;
    stage.state("speaking").await;
    stage.consents("sam", Purpose::AiInterviewer, false).await;
    stage.leaves("sam").await;
    stage.joins("sam", "interviewee", ALL).await;
    stage.attribute("viva.waiting", "consent").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stage.seen.lock().unwrap().taps.last().unwrap().1);
}

#[tokio::test]
async fn a_grant_counts_for_the_notice_that_is_given_now() {
    let mut stage = Stage::new().await;
    let old = ConsentRecord {
        interview: stage.id.clone(),
        identity: "sam".into(),
        purpose: Purpose::AiInterviewer,
        granted: true,
        notice_version: "before".into(),
        source: "rest".into(),
        at_ms: 1,
    };
    stage.store.insert_consent(&old).await.unwrap();
    stage.joins("sam", "interviewee", "").await;
    stage.attribute("viva.waiting", "consent").await;
    let grant =
        |version: &str| format!(r#"{{"purpose":"ai_interviewer","granted":true,"notice_version":"{version}"}}"#);
    let (_, why) = stage.rpc("sam", "viva.consent", &grant("before")).await.unwrap_err();
    assert!(why.contains("has changed"), "{why}");
    assert!(stage.seen.lock().unwrap().taps.is_empty());
    stage.rpc("sam", "viva.consent", &grant("test")).await.unwrap();
    stage.hears(&stage.question(0)).await;
}

#[tokio::test]
async fn deciding_over_and_over_fills_no_database_and_a_withdrawal_always_counts() {
    let stage = Stage::new().await;
    stage.joins("sam", "interviewee", "").await;
    for _ in 0..20 {
        stage.consents("sam", Purpose::Transcription, true).await;
    }
    assert_eq!(stage.store.all_consents(&stage.id).await.unwrap().len(), 1);
    let mut refused = 0;
    for _ in 0..110 {
        refused += usize::from(stage.decides("sam", Purpose::AiInterviewer, true).await.is_err());
        stage.consents("sam", Purpose::AiInterviewer, false).await;
    }
    assert!(refused > 0, "a limit");
    assert_eq!(stage.seen.lock().unwrap().taps.last().unwrap(), &("sam".to_owned(), false));
}

#[tokio::test]
async fn a_database_that_hangs_delays_no_withdrawal() {
    let stage = Stage::new().await;
    stage.joins("sam", "interviewee", ALL).await;
    stage.state("speaking").await;
    let lock = stage.lock_database().await;
    let asked = Instant::now();
    stage.consents("sam", Purpose::AiInterviewer, false).await;
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert_eq!(stage.seen.lock().unwrap().taps.last().unwrap(), &("sam".to_owned(), false));
    // Nor is it forgotten.
    drop(lock);
    let restarted = stage.restart().await;
    let latest = restarted.store.latest_consents(&restarted.id, &"sam".into()).await.unwrap();
    assert!(latest.iter().any(|c| c.purpose == Purpose::AiInterviewer && !c.granted));
}

#[tokio::test]
async fn a_goodbye_that_is_talked_into_is_said_again() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    for n in 0..6 {
        stage.hears(&stage.question(n)).await;
        sam.says("I don't know, next question please.").await;
    }
    stage.state("speaking").await;
    sam.begins();
    stage.state("listening").await;
    assert!(stage.interview().await.end_reason.is_none());
    sam.ends("Thank you very much for your time.");
    stage.attribute("viva.ended", "completed").await;
    let last = stage.lines().await.pop().unwrap();
    assert!(last.text.0.ends_with("Goodbye.") && !last.interrupted, "{}", last.text.0);
}

#[tokio::test]
async fn an_interruption_leaves_only_what_was_heard() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.state("speaking").await;
    tokio::time::sleep(WORD * 6).await;
    sam.says("Sorry I have to turn down the radio").await;
    stage.hears(&stage.question(0)).await;
    let lines = stage.lines().await;
    assert!(lines[0].interrupted && !lines[0].text.0.contains(&stage.question(0)), "{}", lines[0].text.0);
    assert!(lines[0].text.0.starts_with("Hello Sam"));
    // The question was not heard, so it has not been asked; it is now.
    let acts: Vec<_> = stage.turns().await.into_iter().map(|t| (t.act, t.interrupted)).collect();
    assert_eq!(acts[0], ("greet".to_owned(), true));
    assert_eq!(acts[1].0, "repeat");
    assert!(stage.metrics.render().contains("viva_barge_ins_total 1"));
}

#[tokio::test]
async fn hanging_up_in_the_middle_of_a_word_loses_none() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    sam.begins();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // The listener hears the closed tap out: the last words come after the person is gone.
    stage.leaves_with("sam", sam, "I built the").await;
    stage.attribute("viva.ended", "left").await;
    assert_eq!(stage.transcript().await.last().unwrap(), "sam: I built the");
    let last = stage.lines().await.pop().unwrap();
    assert_eq!((last.role, last.name.0.as_str()), (Role::Interviewee, "SAM"));
    assert_eq!(stage.interview().await.end_reason, Some(EndReason::Left));
}

#[tokio::test]
async fn who_comes_back_goes_on_at_the_same_question() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    sam.says(LONG).await;
    stage.hears(&stage.question(1)).await;
    stage.leaves("sam").await;
    stage.state("idle").await;
    stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&format!("Welcome back. Let us go on where we were. {}", stage.question(1))).await;
}

#[tokio::test]
async fn a_restart_of_the_server_goes_on_at_the_same_question() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    sam.says(LONG).await;
    stage.hears(&stage.question(1)).await;
    let before = stage.lines().await.len();

    let stage = stage.restart().await;
    // The consent is on record: the new token need not say it.
    let mut sam = stage.joins("sam", "interviewee", "").await;
    stage.hears(&format!("Let us go on where we were. {}", stage.question(1))).await;
    sam.says(LONG).await;
    stage.hears(&stage.question(2)).await;
    let lines = stage.lines().await;
    assert!(lines.len() >= before + 3 && lines.windows(2).all(|w| w[0].seq < w[1].seq));
    assert_eq!(stage.interview().await.state, InterviewState::Live);
}

#[tokio::test]
async fn the_second_person_is_heard_but_does_not_drive() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    let mut maria = stage.joins("maria", "interviewer", ALL).await;
    stage.hears(&stage.question(0)).await;
    maria.says("Let me add that we mean your last job here").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.turns().await.len(), 1, "nobody answers the second person");
    sam.says(LONG).await;
    stage.hears(&stage.question(1)).await;
    let lines = stage.lines().await;
    assert_eq!((lines[1].identity.as_str(), lines[1].role), ("maria", Role::Interviewer));
    assert_eq!((lines[1].name.0.as_str(), lines[2].role), ("MARIA", Role::Interviewee));
    assert!(stage.captions().iter().any(|c| c.0 == "maria"));
}

#[tokio::test]
async fn the_buttons_work_and_say_so_where_they_do_not() {
    let mut stage = Stage::new().await;
    stage.joins("sam", "interviewee", ALL).await;
    stage.joins("maria", "interviewer", "").await;
    stage.hears(&stage.question(0)).await;
    stage.rpc("sam", "viva.repeat", "{}").await.unwrap();
    stage.hears(&format!("{} {}", "Of course.", stage.question(0))).await;
    stage.rpc("sam", "viva.thinking", "{}").await.unwrap();
    stage.attribute("viva.hold", "1").await;
    stage.rpc("sam", "viva.done", "{}").await.unwrap();
    stage.attribute("viva.hold", "").await;
    // Done without a word: on to the next question.
    stage.hears(&stage.question(1)).await;

    let errors = [
        ("maria", "viva.done", "{}", 1500, "only the interviewee"),
        ("sam", "viva.dance", "{}", 1400, "viva.consent"),
        ("sam", "viva.consent", "nonsense", 1500, "payload"),
        ("sam", "viva.consent", r#"{"purpose":"cookies","granted":true}"#, 1500, "unknown purpose"),
    ];
    for (who, method, payload, code, words) in errors {
        let (found, message) = stage.rpc(who, method, payload).await.unwrap_err();
        assert_eq!(found, code);
        assert!(message.contains(words), "{message}");
    }
    stage.rpc("maria", "viva.end", "{}").await.unwrap();
    stage.attribute("viva.ended", "ended_by_host").await;
}

#[tokio::test]
async fn an_answer_may_be_written_and_its_reply_stands_in_the_chat() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    stage.writes("sam", LONG).await;
    stage.hears(&stage.question(1)).await;
    let chat = stage.chat_has(1).await;
    assert!(chat[0].0.is_empty() && chat[0].1.contains(&stage.question(1)), "{chat:?}");
    assert_eq!(stage.transcript().await[1], format!("sam: {LONG}"));
    // What is said is answered aloud only.
    sam.says(LONG).await;
    stage.hears(&stage.question(2)).await;
    assert_eq!(stage.chat().len(), 1);
}

#[tokio::test]
async fn a_message_stops_the_interviewer_and_goes_with_what_was_being_said() {
    let stage = Stage::new().await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    sam.says(LONG).await;
    stage.state("speaking").await;
    tokio::time::sleep(WORD * 4).await;
    stage.writes("sam", "Sorry, could you repeat that?").await;
    let chat = stage.chat_has(1).await;
    assert!(chat[0].1.ends_with(&stage.question(1)), "{chat:?}");
    let lines = stage.lines().await;
    assert!(lines[2].interrupted, "{lines:?}");
    assert!(!stage.metrics.render().contains("viva_barge_ins_total 1"), "a message is no barge-in");
}

#[tokio::test]
async fn messages_are_not_read_without_consent_nor_of_others_nor_beyond_a_length() {
    let stage = Stage::new().await;
    stage.joins("sam", "interviewee", "").await;
    stage.joins("maria", "interviewer", ALL).await;
    stage.writes("sam", "Hello, are you there?").await;
    let chat = stage.chat_has(1).await;
    assert!(chat[0].0 == ["sam"] && chat[0].1.contains("agree"), "{chat:?}");
    assert!(stage.turns().await.is_empty() && stage.lines().await.is_empty());

    stage.consents("sam", Purpose::AiInterviewer, true).await;
    stage.hears(&stage.question(0)).await;
    stage.writes("maria", "Shall we take a break afterwards?").await;
    stage.writes("sam", &"long ".repeat(3000)).await;
    let chat = stage.chat_has(2).await;
    assert!(chat[1].0 == ["sam"] && chat[1].1.contains("too long"), "{chat:?}");
    stage.writes("sam", LONG).await;
    stage.hears(&stage.question(1)).await;
    assert_eq!(stage.turns().await.len(), 2, "only what the interviewee wrote was answered");
    // Listening was agreed to, keeping was not.
    assert!(stage.transcript().await.iter().all(|line| !line.starts_with("sam")));
}

#[tokio::test]
async fn a_flood_of_messages_is_answered_like_a_few_and_told_once() {
    let stage = Stage::new().await;
    stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    for n in 0..40 {
        stage.writes("sam", &"x".repeat(2 + n)).await;
    }
    let told = |chat: &[(Vec<String>, String)]| chat.iter().filter(|(_, text)| text.contains("so many")).count();
    while told(&stage.chat()) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.state("listening").await;
    assert!(told(&stage.chat()) <= 2, "{:?}", stage.chat());
    assert!(stage.transcript().await.iter().map(String::len).sum::<usize>() < 1000);
}

#[tokio::test]
async fn what_was_begun_without_consent_is_not_read_after_it() {
    let stage = Stage::new().await;
    stage.joins("sam", "interviewee", "").await;
    stage.begins_to_write("sam", "s", "what I thought before").await;
    stage.chat_has(1).await;
    stage.consents("sam", Purpose::AiInterviewer, true).await;
    stage.consents("sam", Purpose::Transcription, true).await;
    stage.hears(&stage.question(0)).await;
    stage.ends_to_write("sam", "s").await;
    // Begun with consent, ended after it was withdrawn and given again.
    stage.begins_to_write("sam", "t", "what I thought between").await;
    stage.consents("sam", Purpose::AiInterviewer, false).await;
    stage.consents("sam", Purpose::AiInterviewer, true).await;
    stage.ends_to_write("sam", "t").await;
    stage.writes("sam", LONG).await;
    stage.hears(&stage.question(1)).await;
    assert!(stage.transcript().await.iter().all(|line| !line.contains("thought")));
}

#[tokio::test]
async fn with_voice_alone_the_plan_is_gone_through() {
    let stage = Stage::with(config(), None, false).await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.attribute("viva.recognition", "off").await;
    for n in 0..6 {
        stage.hears(&stage.question(n)).await;
        sam.says("").await;
    }
    stage.attribute("viva.ended", "completed").await;
    assert!(stage.captions().iter().all(|c| c.0.is_empty()), "no words, no captions");
}

#[tokio::test]
async fn nobody_comes() {
    let mut config = config();
    config.no_show_secs = 1;
    let stage = Stage::with(config, None, true).await;
    stage.attribute("viva.ended", "no_show").await;
    assert_eq!(stage.interview().await.end_reason, Some(EndReason::NoShow));
}

#[tokio::test]
async fn the_time_is_over() {
    let mut config = config();
    config.max_duration_secs = 1;
    let stage = Stage::with(config, None, true).await;
    stage.joins("sam", "interviewee", ALL).await;
    stage.attribute("viva.ended", "time_up").await;
    let last = stage.transcript().await.pop().unwrap();
    assert!(last.contains("our time is over") && last.ends_with("Goodbye."), "{last}");
}

#[tokio::test]
async fn long_silence_is_met_with_patience() {
    let mut config = config();
    (config.silence.nudge_after_secs, config.silence.move_on_after_secs) = (1, 1);
    let stage = Stage::with(config, None, true).await;
    stage.joins("sam", "interviewee", ALL).await;
    stage.hears("Take your time. I am listening.").await;
    stage.hears(&format!("That is all right, let us go on. {}", stage.question(1))).await;
}

type Answer = Vec<Result<&'static str, ProviderErrorKind>>;

/// A model that answers as told, and keeps what it was asked.
struct FakeLlm {
    answers: Mutex<Vec<Answer>>,
    prompts: Mutex<Vec<Prompt>>,
    hang: bool,
}

impl FakeLlm {
    fn new(mut answers: Vec<Answer>, hang: bool) -> Arc<Self> {
        answers.reverse();
        Arc::new(Self { answers: Mutex::new(answers), prompts: Mutex::new(vec![]), hang })
    }
}

impl LlmProvider for FakeLlm {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn reply(&self, prompt: Prompt) -> mpsc::Receiver<Result<Personal, ProviderError>> {
        self.prompts.lock().unwrap().push(prompt);
        let (tx, rx) = mpsc::channel(64);
        let pieces = self.answers.lock().unwrap().pop().unwrap_or_default();
        for piece in pieces {
            let piece = piece.map(Personal::from).map_err(|kind| ProviderError {
                provider: "fake",
                kind,
                message: "as told".into(),
            });
            tx.try_send(piece).unwrap();
        }
        if self.hang {
            tokio::spawn(async move { tx.closed().await });
        }
        rx
    }
}

#[tokio::test]
async fn a_model_words_what_the_cursor_decides() {
    let llm = FakeLlm::new(
        vec![vec![Ok("Billing for"), Ok(" three years, **thank you**."), Ok(" What did you"), Ok(" give up?")]],
        false,
    );
    let stage = Stage::with(config(), Some(llm.clone()), true).await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    sam.says(LONG).await;
    stage.hears("Billing for three years, thank you. What did you give up?").await;
    let prompts = std::mem::take(&mut *llm.prompts.lock().unwrap());
    assert_eq!(prompts.len(), 1, "the greeting is the plan's own");
    let told = &prompts[0].messages;
    assert!(told.last().unwrap().1.0.contains(&stage.question(1)));
    assert_eq!(told[told.len() - 2].1.0, LONG);
    assert!(told[told.len() - 3].1.0.contains(&stage.question(0)));
    let turns = stage.turns().await;
    assert_eq!(turns[1].act, "ask");
    assert!(turns[1].times.llm_first_token_us.is_some());
    assert!(stage.metrics.render().contains("viva_llm_first_token_seconds_count{provider=\"fake\"} 1"));
}

#[tokio::test]
async fn a_model_that_fails_is_replaced_by_the_script() {
    let kinds: Vec<(Answer, &str, &str)> = vec![
        (vec![Err(ProviderErrorKind::Unavailable)], "unavailable", "Thank you"),
        (vec![], "malformed", "thank you"),
        // Half a stream: what was begun is kept, the question is said all the same.
        (vec![Ok("Billing, I see. And "), Err(ProviderErrorKind::Unavailable)], "unavailable", "Billing, I see."),
    ];
    for (answer, kind, words) in kinds {
        let stage = Stage::with(config(), Some(FakeLlm::new(vec![answer], false)), true).await;
        let mut sam = stage.joins("sam", "interviewee", ALL).await;
        stage.hears(&stage.question(0)).await;
        sam.says(LONG).await;
        stage.hears(&stage.question(1)).await;
        let said = stage.transcript().await.pop().unwrap();
        assert!(said.to_lowercase().contains(&words.to_lowercase()), "{said}");
        let line = format!("viva_provider_errors_total{{kind=\"{kind}\",provider=\"fake\",stage=\"llm\"}} 1");
        assert!(stage.metrics.render().contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_model_that_hangs_is_not_awaited() {
    let mut config = config();
    config.llm.timeout_ms = 100;
    let stage = Stage::with(config, Some(FakeLlm::new(vec![], true)), true).await;
    let mut sam = stage.joins("sam", "interviewee", ALL).await;
    stage.hears(&stage.question(0)).await;
    sam.says(LONG).await;
    stage.hears(&stage.question(1)).await;
    assert!(stage.metrics.render().contains("kind=\"timeout\",provider=\"fake\",stage=\"llm\"} 1"));
}
