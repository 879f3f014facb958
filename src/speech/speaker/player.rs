//! The pace of talk: one frame to the sink every 20 ms.

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Item, ItemKind, SpeakerEvent,
    heard::{Heard, Rest},
};
use crate::media::{AudioSink, OpusFrame, PACKET_DURATION};

/// How late a frame may be before the clock is set anew instead of being caught up with: two frames at once are the
/// most that ever leave together.
const CATCH_UP: std::time::Duration = PACKET_DURATION;

pub struct Player {
    sink: Arc<dyn AudioSink>,
    epoch: watch::Receiver<u64>,
    events: mpsc::Sender<SpeakerEvent>,
    /// Items of the present that were taken out of the way at an interruption: at most what the channel holds.
    queue: VecDeque<Item>,
    current: Option<Utterance>,
    /// The number of the last utterance that finished: what comes with this or a lower one is void.
    finished: Option<u64>,
    /// When the next frame may leave.
    next_at: Option<Instant>,
}

struct Utterance {
    number: u64,
    heard: Heard,
    started: bool,
    complete: bool,
}

/// The reader of the events, or the room, is gone.
struct Gone;

impl Player {
    pub fn new(sink: Arc<dyn AudioSink>, epoch: watch::Receiver<u64>, events: mpsc::Sender<SpeakerEvent>) -> Self {
        Self { sink, epoch, events, queue: VecDeque::new(), current: None, finished: None, next_at: None }
    }

    pub async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        loop {
            let item = match self.queue.pop_front() {
                Some(item) => Some(item),
                None => tokio::select! {
                    biased;
                    _ = self.epoch.changed() => {
                        self.epoch.mark_changed();
                        None
                    }
                    item = items.recv() => match item {
                        Some(item) => Some(item),
                        None => return,
                    },
                },
            };
            let done = match item {
                Some(item) if item.epoch < *self.epoch.borrow() => self.discard(item).await,
                Some(item) => self.play(item).await,
                None => Ok(()),
            };
            let done = match (done, self.epoch.has_changed()) {
                (Ok(()), Ok(false)) => Ok(()),
                (Ok(()), Ok(true)) => self.interrupted(&mut items).await,
                // The speaker was dropped.
                _ => Err(Gone),
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn play(&mut self, item: Item) -> Result<(), Gone> {
        if self.finished.is_some_and(|finished| item.utterance <= finished) {
            return Ok(());
        }
        if self.current.as_ref().is_some_and(|u| u.number < item.utterance) {
            // Nobody said that the one before was over; the next one does.
            self.finish().await?;
        }
        let utterance = self.current.get_or_insert_with(|| Utterance {
            number: item.utterance,
            heard: Heard::default(),
            started: false,
            complete: true,
        });
        match item.kind {
            ItemKind::Clause(text) => utterance.heard.begin_clause(text),
            ItemKind::FirstAudio(at) => {
                let number = utterance.number;
                self.send(SpeakerEvent::FirstAudio { utterance: number, at }).await?;
            }
            ItemKind::ClauseEnd { complete } => {
                utterance.complete &= complete;
                utterance.heard.end_clause(complete);
            }
            ItemKind::Frame { payload, audible } => {
                self.frame(item.epoch, payload, Some(audible)).await?;
            }
            ItemKind::Tail(payload) => self.frame(item.epoch, payload, None).await?,
            ItemKind::End => {
                // The last frame is over when the next one would be due.
                if let Some(due) = self.next_at
                    && !self.wait_until(due).await
                {
                    return Ok(());
                }
                self.finish().await?;
            }
        }
        Ok(())
    }

    /// Waits for a time. False: an interruption came first.
    async fn wait_until(&mut self, due: Instant) -> bool {
        tokio::select! {
            biased;
            _ = self.epoch.changed() => {
                // The loop sees to it.
                self.epoch.mark_changed();
                false
            }
            () = sleep_until(due) => true,
        }
    }

    /// Waits for its time and hands one frame to the sink. `audible` `None`: it is no clause's.
    async fn frame(&mut self, epoch: u64, payload: Box<[u8]>, audible: Option<bool>) -> Result<(), Gone> {
        let due = self.next_at.unwrap_or_else(Instant::now);
        if !self.wait_until(due).await {
            return Ok(());
        }
        let now = Instant::now();
        let on_time = self.next_at.is_some() && now.saturating_duration_since(due) <= CATCH_UP;
        let Some(utterance) = &mut self.current else { return Ok(()) };
        let report = (!utterance.started).then_some(utterance.number);
        let frame = OpusFrame { payload, starts_talk_spurt: !on_time, report };
        let sent = {
            // The guard keeps an interruption out until the frame is handed over.
            let present = self.epoch.borrow();
            if *present != epoch {
                return Ok(());
            }
            self.sink.inject(frame)
        };
        if sent.is_err() {
            utterance.complete = false;
            self.finish().await?;
            return Err(Gone);
        }
        self.next_at = Some(if on_time { due } else { now } + PACKET_DURATION);
        if let Some(audible) = audible {
            utterance.heard.frame(audible);
        }
        if let Some(utterance) = report {
            self.current.as_mut().into_iter().for_each(|u| u.started = true);
            self.send(SpeakerEvent::Started { utterance, at: now.into_std() }).await?;
        }
        Ok(())
    }

    /// What was being said ends here. What is queued tells how much of its clause was not heard.
    async fn interrupted(&mut self, items: &mut mpsc::Receiver<Item>) -> Result<(), Gone> {
        let epoch = *self.epoch.borrow_and_update();
        let mut queued = std::mem::take(&mut self.queue);
        while let Ok(item) = items.try_recv() {
            queued.push_back(item);
        }
        if let Some(mut utterance) = self.current.take() {
            utterance.heard.cut(rest_of_clause(utterance.number, &queued));
            self.finished = Some(utterance.number);
            self.send_finished(utterance.number, utterance.heard, false).await?;
        }
        for item in queued {
            if item.epoch < epoch {
                self.discard(item).await?;
            } else {
                self.queue.push_back(item);
            }
        }
        Ok(())
    }

    /// Something that was said before an interruption and never played.
    async fn discard(&mut self, item: Item) -> Result<(), Gone> {
        if self.finished.is_some_and(|finished| item.utterance <= finished) {
            return Ok(());
        }
        self.finished = Some(item.utterance);
        self.send_finished(item.utterance, Heard::default(), false).await
    }

    async fn finish(&mut self) -> Result<(), Gone> {
        let Some(utterance) = self.current.take() else { return Ok(()) };
        self.finished = Some(utterance.number);
        self.send_finished(utterance.number, utterance.heard, utterance.complete).await
    }

    async fn send_finished(&self, utterance: u64, heard: Heard, complete: bool) -> Result<(), Gone> {
        let at = Instant::now().into_std();
        self.send(SpeakerEvent::Finished { utterance, at, heard: heard.text(), complete }).await
    }

    async fn send(&self, event: SpeakerEvent) -> Result<(), Gone> {
        self.events.send(event).await.map_err(|_| Gone)
    }
}

/// Frames of the open clause that are still queued.
fn rest_of_clause(utterance: u64, queued: &VecDeque<Item>) -> Rest {
    let mut rest = Rest::default();
    for (i, item) in queued.iter().filter(|i| i.utterance == utterance).enumerate() {
        match item.kind {
            ItemKind::Frame { audible: true, .. } => rest.audible = i as u32 + 1,
            ItemKind::ClauseEnd { complete } => {
                rest.whole = complete;
                break;
            }
            ItemKind::Clause(_) | ItemKind::End => break,
            _ => {}
        }
    }
    rest
}
