//! Scenarios: what is written in YAML, and the plan that follows from it. Pure: the same file gives the same plan.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::Deserialize;

/// How long a microphone stays shut.
const MUTED: Duration = Duration::from_secs(2);

/// The file. Unknown keys are errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Of everything that is left to chance.
    #[serde(default = "one")]
    pub seed: u64,
    pub rooms: usize,
    #[serde(default)]
    pub video: Video,
    #[serde(default)]
    pub audio: Audio,
    pub phases: Vec<Phase>,
    #[serde(default)]
    pub expect: Expect,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Video {
    pub pps: f64,
    pub bytes: usize,
    pub burst: usize,
    pub simulcast: bool,
}

impl Default for Video {
    fn default() -> Self {
        Self { pps: 100.0, bytes: 1_100, burst: 1, simulcast: false }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audio {
    pub pps: f64,
}

impl Default for Audio {
    fn default() -> Self {
        Self { pps: 50.0 }
    }
}

/// A stretch of time. At its begin each room has the people and publishers of the phase before.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub secs: f64,
    /// People of each room. Joins and leaves that lead there are spread over the phase's first half.
    pub people: usize,
    /// Of them, how many publish; the others only receive.
    pub publishers: usize,
    /// In all rooms together: somebody leaves and somebody alike comes.
    #[serde(default)]
    pub swaps_per_sec: f64,
    /// In all rooms together: a publisher's microphone is shut for two seconds.
    #[serde(default)]
    pub mutes_per_sec: f64,
}

/// Limits; beyond them the command fails.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    pub loss_pct: f64,
    pub delay_p99_ms: f64,
    pub silent_flows: usize,
}

impl Default for Expect {
    fn default() -> Self {
        Self { loss_pct: 0.5, delay_p99_ms: 200.0, silent_flows: 0 }
    }
}

fn one() -> u64 {
    1
}

/// Somebody in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: usize,
    pub room: usize,
    pub publishes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Join(Person),
    Leave(usize),
    Mute(usize, bool),
}

impl Scenario {
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no scenario", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let scenario: Self = serde_yaml_ng::from_str(text)?;
        let Self { video, audio, .. } = &scenario;
        ensure!((1..=1_000).contains(&scenario.rooms), "`rooms` is 1 to 1000");
        ensure!((0.0..=3_000.0).contains(&video.pps), "`video.pps` is 0 to 3000");
        ensure!((64..=1_160).contains(&video.bytes), "`video.bytes` is 64 to 1160");
        ensure!((1..=100).contains(&video.burst), "`video.burst` is 1 to 100");
        ensure!((0.0..=3_000.0).contains(&audio.pps), "`audio.pps` is 0 to 3000");
        ensure!(video.pps + audio.pps > 0.0, "nothing is sent: set `video.pps` or `audio.pps` above 0");
        ensure!(!scenario.phases.is_empty(), "`phases` is empty");
        for (n, phase) in scenario.phases.iter().enumerate() {
            let of = format!("phase {}", n + 1);
            ensure!((0.5..=86_400.0).contains(&phase.secs), "{of}: `secs` is 0.5 to 86400");
            ensure!(phase.people <= 1_000, "{of}: `people` is at most 1000");
            ensure!(phase.publishers <= phase.people, "{of}: there are more `publishers` than `people`");
            for (key, rate) in [("swaps_per_sec", phase.swaps_per_sec), ("mutes_per_sec", phase.mutes_per_sec)] {
                ensure!((0.0..=1_000.0).contains(&rate), "{of}: `{key}` is 0 to 1000");
            }
        }
        Ok(scenario)
    }

    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.phases.iter().map(|phase| phase.secs).sum())
    }

    /// Everything that happens, in order.
    pub fn plan(&self) -> Vec<(Duration, Act)> {
        let mut planner =
            Planner { rng: StdRng::seed_from_u64(self.seed), next: 0, here: Vec::new(), acts: Vec::new() };
        let mut begin = 0.0;
        for phase in &self.phases {
            planner.play(begin, phase, self.rooms);
            begin += phase.secs;
        }
        let mut acts = planner.acts;
        acts.sort_by_key(|(at, _)| *at);
        acts
    }
}

struct Planner {
    rng: StdRng,
    next: usize,
    here: Vec<Person>,
    acts: Vec<(Duration, Act)>,
}

impl Planner {
    fn play(&mut self, begin: f64, phase: &Phase, rooms: usize) {
        for room in 0..rooms {
            for (publishes, wanted) in [(true, phase.publishers), (false, phase.people - phase.publishers)] {
                self.reach(begin, phase.secs / 2.0, room, publishes, wanted);
            }
        }
        // Chance in the second half, when all are there: nobody leaves before they came.
        let (from, to) = (begin + phase.secs / 2.0, begin + phase.secs);
        let mut moments = self.times(phase.swaps_per_sec, true, from, to);
        moments.extend(self.times(phase.mutes_per_sec, false, from, to));
        moments.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        for (at, swap) in moments {
            let able: Vec<_> = (0..self.here.len()).filter(|index| swap || self.here[*index].publishes).collect();
            if able.is_empty() {
                continue;
            }
            let index = able[self.rng.random_range(0..able.len())];
            let person = self.here[index];
            if swap {
                self.here.swap_remove(index);
                self.act(at, Act::Leave(person.id));
                self.join(at, person.room, person.publishes);
            } else {
                self.act(at, Act::Mute(person.id, true));
                self.act(at + MUTED.as_secs_f64(), Act::Mute(person.id, false));
            }
        }
    }

    /// Joins or leaves until there are as many as wanted.
    fn reach(&mut self, begin: f64, span: f64, room: usize, publishes: bool, wanted: usize) {
        let alike = |person: &Person| person.room == room && person.publishes == publishes;
        let have = self.here.iter().filter(|person| alike(person)).count();
        for _ in have..wanted {
            let at = begin + self.rng.random_range(0.0..span);
            self.join(at, room, publishes);
        }
        for _ in wanted..have {
            let Some(index) = self.here.iter().position(alike) else { return };
            let person = self.here.remove(index);
            let at = begin + self.rng.random_range(0.0..span);
            self.act(at, Act::Leave(person.id));
        }
    }

    fn join(&mut self, at: f64, room: usize, publishes: bool) {
        let person = Person { id: self.next, room, publishes };
        self.next += 1;
        self.here.push(person);
        self.act(at, Act::Join(person));
    }

    /// As many moments as the rate makes, anywhere between, marked.
    fn times(&mut self, per_sec: f64, mark: bool, from: f64, to: f64) -> Vec<(f64, bool)> {
        let count = (per_sec * (to - from)).round() as usize;
        (0..count).map(|_| (self.rng.random_range(from..to), mark)).collect()
    }

    fn act(&mut self, at: f64, act: Act) {
        self.acts.push((Duration::from_secs_f64(at), act));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TEXT: &str = "
seed: 7
rooms: 2
phases:
  - { secs: 4, people: 3, publishers: 2, swaps_per_sec: 1, mutes_per_sec: 2 }
  - { secs: 4, people: 1, publishers: 1 }
  - { secs: 2, people: 5, publishers: 2 }
";

    #[test]
    fn rooms_reach_what_each_phase_wants_and_nobody_acts_who_is_not_there() {
        let scenario = Scenario::parse(TEXT).unwrap();
        assert_eq!(scenario.length(), Duration::from_secs(10));
        let plan = scenario.plan();
        assert!(plan.is_sorted_by_key(|(at, _)| *at));
        let mut here: Vec<Person> = Vec::new();
        let mut seen = HashSet::new();
        let count = |here: &[Person], publishes| here.iter().filter(|it| it.publishes == publishes).count();
        let mut at_end_of = |until: u64, here: &mut Vec<Person>| {
            for (_, act) in plan.iter().filter(|(at, _)| {
                let end = Duration::from_secs(until);
                *at < end && *at >= end - Duration::from_secs(if until == 10 { 2 } else { 4 })
            }) {
                match act {
                    Act::Join(person) => {
                        assert!(seen.insert(person.id));
                        here.push(*person);
                    }
                    Act::Leave(id) => {
                        let index = here.iter().position(|person| person.id == *id).expect("leaves after joining");
                        here.remove(index);
                    }
                    Act::Mute(id, _) => assert!(seen.contains(id)),
                }
            }
        };
        at_end_of(4, &mut here);
        assert_eq!((count(&here, true), count(&here, false)), (4, 2));
        at_end_of(8, &mut here);
        assert_eq!((count(&here, true), count(&here, false)), (2, 0));
        at_end_of(10, &mut here);
        assert_eq!((count(&here, true), count(&here, false)), (4, 6));
    }

    #[test]
    fn a_seed_is_a_plan() {
        let scenario = Scenario::parse(TEXT).unwrap();
        assert_eq!(scenario.plan(), scenario.plan());
        let other = Scenario { seed: 8, ..scenario.clone() };
        assert_ne!(scenario.plan(), other.plan());
    }

    #[test]
    fn mistakes_are_told_with_their_key() {
        let told = |text: &str| format!("{:#}", Scenario::parse(text).unwrap_err());
        assert!(told(&TEXT.replace("people: 1,", "poeple: 1,")).contains("unknown field `poeple`"));
        assert!(told(&TEXT.replace("rooms: 2", "rooms: 0")).contains("`rooms` is 1 to 1000"));
        assert!(told(&TEXT.replace("people: 1,", "people: 0,")).contains("phase 2"));
        assert!(told("rooms: 1").contains("phases"));
    }

    #[test]
    fn the_examples_are_scenarios() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
        assert!(files.len() >= 2);
        for file in files {
            assert!(!Scenario::read(&file).unwrap().plan().is_empty());
        }
    }
}
