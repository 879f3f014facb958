//! Threads that drive bots: each waits on the sockets of its own ones, and on a timer.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    os::fd::{AsFd, AsRawFd},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{
    bot::{Bot, BotEvent, BotReport, BotSpec, Shared},
    signal::{Heard, Say},
};

const WAKER: Token = Token(0);
const TIMER: Token = Token(1);
const FIRST_BOT: usize = 2;
/// Timers closer together than this are one wake-up.
const TIMER_MIN: Duration = Duration::from_micros(200);

pub enum Command {
    Add { spec: Box<BotSpec>, say: UnboundedSender<Say> },
    Heard { bot: u32, heard: Heard },
    Mute { bot: u32, muted: bool },
    Leave { bot: u32 },
    VideoPps(f64),
    Reset,
    Collect(oneshot::Sender<Vec<BotReport>>),
    Stop,
}

/// The way to one thread.
#[derive(Clone)]
pub struct Driver {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
}

impl Driver {
    pub fn start(name: &str, shared: Arc<Shared>, events: UnboundedSender<BotEvent>) -> Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let poll = Poll::new().context("no epoll")?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let fd = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), TIMER, Interest::READABLE)?;
        let looped = Loop {
            poll,
            timer,
            commands: receiver,
            shared,
            events,
            bots: HashMap::new(),
            gone: Vec::new(),
            due: BinaryHeap::new(),
        };
        thread::Builder::new().name(name.into()).spawn(move || looped.run()).context("no thread")?;
        Ok(Self { commands, waker })
    }

    pub fn send(&self, command: Command) {
        // A thread that has stopped needs no more commands.
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

struct Driven {
    bot: Bot,
    /// The earliest time that stands for it in `due`.
    armed: Option<Instant>,
}

impl Driven {
    fn next(&self) -> Instant {
        self.bot.next_send().map_or(self.bot.deadline, |send| send.min(self.bot.deadline))
    }
}

struct Loop {
    poll: Poll,
    timer: TimerFd,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    events: UnboundedSender<BotEvent>,
    bots: HashMap<u32, Driven>,
    /// Reports of those who left.
    gone: Vec<BotReport>,
    due: BinaryHeap<Reverse<(Instant, u32)>>,
}

impl Loop {
    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 65_536];
        loop {
            while let Ok(command) = self.commands.try_recv() {
                if matches!(command, Command::Stop) {
                    return;
                }
                self.handle(command);
            }
            self.run_due();
            self.arm_timer();
            if self.poll.poll(&mut events, None).is_err() {
                // Interrupted by a signal.
                continue;
            }
            for event in &events {
                if let Some(bot) = event.token().0.checked_sub(FIRST_BOT) {
                    self.with(bot as u32, |bot| bot.handle_readable(&mut buffer));
                }
            }
        }
    }

    fn handle(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Add { spec, say } => self.add(*spec, say),
            Command::Heard { bot, heard } => self.with(bot, |bot| match heard {
                Heard::Joined => bot.handle_joined(now),
                Heard::Answer { id, sdp } => bot.handle_answer(now, id, &sdp),
                Heard::Sections { audios, videos } => bot.handle_sections(audios, videos),
                Heard::MicrophoneOpen => bot.handle_microphone_open(),
            }),
            Command::Mute { bot, muted } => self.with(bot, |bot| bot.mute(muted)),
            Command::Leave { bot } => {
                self.with(bot, Bot::leave);
                if let Some(mut left) = self.bots.remove(&bot) {
                    let _ = self.poll.registry().deregister(&mut left.bot.socket);
                    self.gone.push(left.bot.report());
                }
            }
            Command::VideoPps(pps) => self.bots.values_mut().for_each(|driven| driven.bot.set_video_pps(pps)),
            Command::Reset => {
                self.gone.clear();
                self.bots.values_mut().for_each(|driven| driven.bot.reset());
            }
            Command::Collect(reply) => {
                let reports = self.gone.iter().cloned().chain(self.bots.values().map(|driven| driven.bot.report()));
                let _ = reply.send(reports.collect());
            }
            Command::Stop => {}
        }
    }

    fn add(&mut self, spec: BotSpec, say: UnboundedSender<Say>) {
        let id = spec.id;
        let made = Bot::new(spec, self.shared.clone(), say, self.events.clone()).and_then(|mut bot| {
            let token = Token(id as usize + FIRST_BOT);
            self.poll.registry().register(&mut bot.socket, token, Interest::READABLE)?;
            Ok(bot)
        });
        match made {
            Ok(bot) => drop(self.bots.insert(id, Driven { bot, armed: None })),
            Err(error) => drop(self.events.send(BotEvent::Failed { bot: id, why: format!("{error:#}") })),
        }
    }

    /// Lets a bot work, and sees to it that it is woken when it wants.
    fn with(&mut self, id: u32, work: impl FnOnce(&mut Bot)) {
        let Some(driven) = self.bots.get_mut(&id) else { return };
        work(&mut driven.bot);
        let next = driven.next();
        if driven.armed.is_none_or(|armed| next < armed) {
            driven.armed = Some(next);
            self.due.push(Reverse((next, id)));
        }
    }

    fn run_due(&mut self) {
        while let Some(Reverse((at, id))) = self.due.peek().copied() {
            let now = Instant::now();
            if at > now {
                return;
            }
            self.due.pop();
            let Some(driven) = self.bots.get_mut(&id) else { continue };
            // A later one of the same bot's: the earlier has woken it already.
            if driven.armed != Some(at) {
                continue;
            }
            driven.armed = None;
            self.with(id, |bot| {
                if bot.deadline <= now {
                    bot.handle_timeout(now);
                }
                bot.send_due(now);
            });
        }
    }

    fn arm_timer(&self) {
        let next = self.due.peek().map_or(Duration::from_secs(1), |Reverse((at, _))| {
            at.saturating_duration_since(Instant::now()).max(TIMER_MIN)
        });
        let at = Expiration::OneShot(TimeSpec::from_duration(next));
        // It can only refuse times that are out of range.
        let _ = self.timer.set(at, TimerSetTimeFlags::empty());
    }
}
