//! What is going on, on standard error; nothing where nobody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub struct Progress {
    bar: ProgressBar,
    secs: f64,
}

impl Progress {
    pub fn new(secs: f64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self { bar, secs }
    }

    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// So much of the measured time is over.
    pub fn at(&self, elapsed: Duration) {
        let secs = elapsed.as_secs_f64().min(self.secs);
        self.bar.set_position((secs * 1_000.0 / self.secs) as u64);
        self.bar.set_message(format!("measuring: {secs:.0} of {:.0} s", self.secs));
    }

    /// A line that stays; where standard error is no terminal, too.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
