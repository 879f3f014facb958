//! Bots in calls: they are made, join, leave, and say what they saw.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    args::{Bots, MediaArgs, ShapeArgs},
    bot::{BotEvent, BotReport, BotSpec, Shared},
    driver::{Command, Driver},
    media::Media,
    server::Server,
    signal,
    stamp::STAMP_BYTES,
};

/// The longest that a join may take.
const JOIN_MAX: Duration = Duration::from_secs(30);
const THREADS_MAX: usize = 4;

/// What a bot does in its room.
#[derive(Clone, Debug)]
pub struct Role {
    pub publishes: Option<Arc<Media>>,
    pub receives: bool,
    /// Tracks of each kind that it will get, as far as is known.
    pub expects: usize,
    pub decrypts: bool,
    /// It is made of the crate webrtc.
    #[cfg_attr(not(feature = "webrtc"), allow(dead_code, reason = "there is no other kind in this build"))]
    pub other: bool,
}

pub struct Call {
    pub shared: Arc<Shared>,
    drivers: Vec<Driver>,
    sender: mpsc::UnboundedSender<BotEvent>,
    events: mpsc::UnboundedReceiver<BotEvent>,
    #[cfg(feature = "webrtc")]
    others: HashMap<u32, crate::other::Other>,
    signalling: JoinSet<()>,
    place: signal::Place,
    local: std::net::IpAddr,
    next: u32,
    /// How long each join took.
    pub joined: HashMap<u32, Duration>,
}

impl Call {
    pub fn new(server: &Server, threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, events) = mpsc::unbounded_channel();
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let threads = if threads == 0 { cores } else { threads };
        let drivers = (0..threads).map(|n| Driver::start(&format!("bots-{n}"), shared.clone(), sender.clone()));
        Ok(Self {
            drivers: drivers.collect::<Result<_>>()?,
            shared,
            sender,
            events,
            #[cfg(feature = "webrtc")]
            others: HashMap::new(),
            signalling: JoinSet::new(),
            place: server.place.clone(),
            local: server.local,
            next: 0,
            joined: HashMap::new(),
        })
    }

    /// Begins a join; [`Call::settle`] says whether it came to an end.
    pub fn join(&mut self, room: String, role: Role) -> u32 {
        let id = self.next;
        self.next += 1;
        let spec = BotSpec {
            id,
            room,
            publishes: role.publishes,
            receives: role.receives,
            expects: role.expects,
            decrypts: role.decrypts,
            local: self.local,
            started: Instant::now(),
        };
        let (say, said) = mpsc::unbounded_channel();
        let (place, events) = (self.place.clone(), self.sender.clone());
        #[cfg(feature = "webrtc")]
        if role.other {
            let (shared, tasks) = (self.shared.clone(), &mut self.signalling);
            self.others.insert(id, crate::other::Other::start(spec, shared, place, events, (say, said), tasks));
            return id;
        }
        let driver = self.driver_of(id).clone();
        driver.send(Command::Add { spec: Box::new(spec.clone()), say });
        let tell = move |heard| driver.send(Command::Heard { bot: id, heard });
        self.signalling.spawn(signal::run(place, spec, said, tell, events));
        id
    }

    pub fn leave(&self, bot: u32) {
        #[cfg(feature = "webrtc")]
        if let Some(other) = self.others.get(&bot) {
            return other.leave();
        }
        self.driver_of(bot).send(Command::Leave { bot });
    }

    pub fn mute(&self, bot: u32, muted: bool) {
        self.driver_of(bot).send(Command::Mute { bot, muted });
    }

    pub fn set_video_pps(&self, pps: f64) {
        self.drivers.iter().for_each(|driver| driver.send(Command::VideoPps(pps)));
    }

    /// Everybody forgets what they counted.
    pub fn reset(&self) {
        self.drivers.iter().for_each(|driver| driver.send(Command::Reset));
        #[cfg(feature = "webrtc")]
        self.others.values().for_each(crate::other::Other::reset);
    }

    fn driver_of(&self, bot: u32) -> &Driver {
        &self.drivers[bot as usize % self.drivers.len()]
    }

    /// Takes what happened so far; a bot that failed is an error.
    pub fn check(&mut self) -> Result<()> {
        while let Ok(event) = self.events.try_recv() {
            self.note(event)?;
        }
        Ok(())
    }

    /// Waits until all who joined are connected.
    pub async fn settle(&mut self, progress: impl Fn(usize)) -> Result<()> {
        while self.joined.len() < self.next as usize {
            match timeout(JOIN_MAX, self.events.recv()).await {
                Ok(Some(event)) => self.note(event)?,
                Ok(None) => bail!("all threads of bots have ended"),
                Err(_) => {
                    let missing = self.next as usize - self.joined.len();
                    bail!("{missing} of {} bots were not connected within {} s", self.next, JOIN_MAX.as_secs())
                }
            }
            progress(self.joined.len());
        }
        Ok(())
    }

    fn note(&mut self, event: BotEvent) -> Result<()> {
        match event {
            BotEvent::Connected { bot, after } => drop(self.joined.insert(bot, after)),
            BotEvent::Failed { bot, why } => bail!("bot {bot} failed: {why}"),
        }
        Ok(())
    }

    pub async fn reports(&self) -> Result<Vec<BotReport>> {
        let mut reports = Vec::new();
        for driver in &self.drivers {
            let (reply, answer) = oneshot::channel();
            driver.send(Command::Collect(reply));
            reports.extend(answer.await?);
        }
        #[cfg(feature = "webrtc")]
        reports.extend(self.others.values().map(crate::other::Other::report));
        Ok(reports)
    }

    pub fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    /// All leave, and have said so.
    pub async fn end(mut self) {
        (0..self.next).for_each(|bot| self.leave(bot));
        let gone = async { while self.signalling.join_next().await.is_some() {} };
        // Whoever has not said it by then is gone all the same.
        let _ = timeout(Duration::from_secs(5), gone).await;
        self.drivers.iter().for_each(|driver| driver.send(Command::Stop));
    }
}

/// Who joins which room, in order: publishers first.
pub fn cast(shape: &ShapeArgs, media: &Arc<Media>, bots: Bots) -> Vec<(String, Role)> {
    let mut receivers = 0;
    let mut decrypts = |receives: bool| {
        receivers += usize::from(receives);
        !receives || receivers % shape.decrypt_one_in == 1 % shape.decrypt_one_in
    };
    let mut cast = Vec::new();
    for room in 0..shape.rooms {
        let mut add = |publishes: bool, receives: bool, expects: usize| {
            let publishes = publishes.then(|| media.clone());
            let other = receives && bots == Bots::Webrtc;
            let role = Role { publishes, receives, expects, decrypts: decrypts(receives), other };
            cast.push((room_name(room), role));
        };
        match (shape.pubs, shape.subs) {
            (Some(pubs), Some(subs)) => {
                (0..pubs).for_each(|_| add(true, false, 0));
                (0..subs).for_each(|_| add(false, true, pubs));
            }
            _ => {
                let people = shape.mesh.unwrap_or(3);
                (0..people).for_each(|_| add(true, true, people - 1));
            }
        }
    }
    cast
}

pub fn room_name(room: usize) -> String {
    format!("load-{room}")
}

/// Tracks that arrive at receivers, of all rooms.
pub fn flows(shape: &ShapeArgs, media: &Media) -> usize {
    let pairs = match (shape.pubs, shape.subs) {
        (Some(pubs), Some(subs)) => pubs * subs,
        _ => shape.mesh.unwrap_or(3) * (shape.mesh.unwrap_or(3) - 1),
    };
    pairs * shape.rooms * media.tracks()
}

pub fn media(args: &MediaArgs) -> Result<Arc<Media>> {
    if args.video_pps <= 0.0 && args.audio_pps <= 0.0 {
        bail!("there is nothing to send: set --video-pps or --audio-pps above 0");
    }
    Ok(Arc::new(Media {
        video_pps: args.video_pps,
        video_bytes: args.video_bytes,
        burst: args.burst,
        audio_pps: args.audio_pps,
        audio_bytes: 80.max(STAMP_BYTES + 1),
        simulcast: args.simulcast,
    }))
}

pub fn shape_text(shape: &ShapeArgs) -> String {
    match (shape.pubs, shape.subs) {
        (Some(pubs), Some(subs)) if shape.rooms == 1 => format!("{pubs} -> {subs}"),
        (Some(pubs), Some(subs)) => format!("{} rooms of {pubs} -> {subs}", shape.rooms),
        _ => format!("{} rooms x {}", shape.rooms, shape.mesh.unwrap_or(3)),
    }
}
