//! What was found, for people and for machines.

use std::fmt::Write;

use serde_json::json;

use super::{Finding, Verdict};

/// All that was found, in the order in which it was looked at.
#[derive(Clone, Debug)]
pub struct Report {
    pub url: String,
    pub findings: Vec<Finding>,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }

    /// The colour of its word on a terminal.
    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Skipped => "\x1b[2m",
            Self::Warning => "\x1b[33m",
            Self::Failure => "\x1b[31m",
        }
    }
}

impl Report {
    pub fn has_failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Failure)
    }

    /// A line for each finding, its advice below it, and a sum.
    pub fn to_text(&self, colours: bool) -> String {
        let mut out = format!("{}\n\n", self.url);
        for Finding { check, verdict, seen, advice } in &self.findings {
            let (on, off) = if colours { (verdict.colour(), "\x1b[0m") } else { ("", "") };
            let _ = writeln!(out, "  {on}{:<8}{off} {check:<12} {seen}", verdict.word());
            if !advice.is_empty() {
                let _ = writeln!(out, "  {:<8} {:<12} -> {advice}", "", "");
            }
        }
        let count = |wanted| self.findings.iter().filter(|finding| finding.verdict == wanted).count();
        let (failures, warnings) = (count(Verdict::Failure), count(Verdict::Warning));
        let sum = match (failures, warnings) {
            (0, 0) if count(Verdict::Skipped) > 0 => "Nothing is wrong with what was looked at.".to_owned(),
            (0, 0) => "All is well.".to_owned(),
            _ => format!("Failures: {failures}, warnings: {warnings}."),
        };
        let _ = writeln!(out, "\n{sum}");
        out
    }

    pub fn to_json(&self) -> String {
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|finding| {
                let Finding { check, verdict, seen, advice } = finding;
                json!({ "check": check, "verdict": verdict.word(), "seen": seen, "advice": advice })
            })
            .collect();
        json!({ "url": self.url, "ok": !self.has_failed(), "findings": findings }).to_string()
    }
}
