//! A Piper voice's description (its `.onnx.json`), and from text to the numbers that it takes. Pure but for reading
//! the file.
//!
//! Parsed tolerantly: voices of different ages differ in what they write.

use std::{collections::HashMap, path::Path};

use serde_json::Value;

/// Letters of one inference at most: longer sentences are cut at their commas. About 20 s of speech.
const SENTENCE_MAX: usize = 300;
/// Code points of the longest phoneme that is looked up.
const PHONEME_MAX: usize = 3;

#[derive(Debug)]
pub struct Voice {
    pub sample_rate: u32,
    /// Voice of espeak-ng that makes its phonemes; `None`: the voice takes letters.
    pub espeak_voice: Option<String>,
    /// Noise, length, noise of the phonemes' length.
    pub scales: [f32; 3],
    /// Number of the speaker, for voices that have several.
    pub speaker: Option<i64>,
    ids: HashMap<String, Vec<i64>>,
}

/// A stretch of text that is spoken in one inference.
#[derive(Clone, Debug, PartialEq)]
pub struct Sentence {
    /// Its clauses, with the mark that ends each.
    pub clauses: Vec<(String, char)>,
}

impl Voice {
    /// `speaker`: name or number; empty takes the first.
    pub fn load(path: &Path, speaker: &str) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("the voice's description `{shown}` is missing"),
            _ => format!("`{shown}` cannot be read: {error}"),
        })?;
        let json = serde_json::from_str(&text).map_err(|error| format!("`{shown}` is not JSON: {error}"))?;
        Self::parse(&json, speaker).map_err(|error| format!("`{shown}`: {error}"))
    }

    fn parse(json: &Value, speaker: &str) -> Result<Self, String> {
        let map = json["phoneme_id_map"].as_object().ok_or("`phoneme_id_map` is missing")?;
        let ids: HashMap<String, Vec<i64>> = map
            .iter()
            .map(|(phoneme, ids)| {
                let ids = match ids {
                    Value::Array(ids) => ids.iter().filter_map(Value::as_i64).collect(),
                    other => other.as_i64().into_iter().collect(),
                };
                (phoneme.clone(), ids)
            })
            .collect();
        for needed in ["^", "$", "_"] {
            if ids.get(needed).is_none_or(Vec::is_empty) {
                return Err(format!("`phoneme_id_map` lacks `{needed}`"));
            }
        }
        let scale = |name: &str, default: f64| json["inference"][name].as_f64().unwrap_or(default) as f32;
        let sample_rate = json["audio"]["sample_rate"].as_u64().unwrap_or(22_050);
        let letters = json["phoneme_type"].as_str() == Some("text");
        let espeak = json["espeak"]["voice"].as_str().unwrap_or("en-us").to_owned();
        Ok(Self {
            sample_rate: u32::try_from(sample_rate).map_err(|_| "`audio.sample_rate` makes no sense")?,
            espeak_voice: (!letters).then_some(espeak),
            scales: [scale("noise_scale", 0.667), scale("length_scale", 1.0), scale("noise_w", 0.8)],
            speaker: speaker_number(json, speaker)?,
            ids,
        })
    }

    /// The numbers for phonemes: `^ _ x _ y _ … $`. What the voice does not know is left out.
    pub fn ids(&self, phonemes: &str) -> Vec<i64> {
        let known = |key: &str| self.ids.get(key).map(Vec::as_slice).unwrap_or_default();
        let pad = known("_");
        let mut ids = [known("^"), pad].concat();
        let chars: Vec<char> = phonemes.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            let longest = (1..=PHONEME_MAX.min(chars.len() - at)).rev().find_map(|n| {
                let phoneme = self.ids.get(&chars[at..at + n].iter().collect::<String>())?;
                Some((n, phoneme))
            });
            if let Some((_, phoneme)) = longest {
                ids.extend_from_slice(phoneme);
                ids.extend_from_slice(pad);
            }
            at += longest.map_or(1, |(n, _)| n);
        }
        ids.extend_from_slice(known("$"));
        ids
    }
}

fn speaker_number(json: &Value, wanted: &str) -> Result<Option<i64>, String> {
    let speakers = json["num_speakers"].as_i64().unwrap_or(1);
    if speakers <= 1 {
        return Ok(None);
    }
    if wanted.is_empty() {
        return Ok(Some(0));
    }
    let by_name = json["speaker_id_map"][wanted].as_i64();
    let number = by_name.or_else(|| wanted.parse().ok()).filter(|n| (0..speakers).contains(n));
    number.map(Some).ok_or_else(|| format!("the voice has no speaker `{wanted}`; it has {speakers}"))
}

/// Cuts a text into sentences and their clauses.
pub fn sentences(text: &str) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    let mut clauses: Vec<(String, char)> = Vec::new();
    let mut clause = String::new();
    let mut length = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let mark =
            matches!(c, '.' | '!' | '?' | ',' | ';' | ':') && chars.peek().is_none_or(|next| !next.is_alphanumeric());
        if !mark {
            clause.push(if c.is_control() { ' ' } else { c });
            length += 1;
            continue;
        }
        push_clause(&mut clauses, &mut clause, c);
        if matches!(c, '.' | '!' | '?') || length > SENTENCE_MAX {
            push_sentence(&mut sentences, &mut clauses);
            length = 0;
        }
    }
    push_clause(&mut clauses, &mut clause, '.');
    push_sentence(&mut sentences, &mut clauses);
    sentences
}

fn push_clause(clauses: &mut Vec<(String, char)>, clause: &mut String, mark: char) {
    if clause.chars().any(char::is_alphanumeric) {
        clauses.push((clause.trim().to_owned(), mark));
    }
    clause.clear();
}

fn push_sentence(sentences: &mut Vec<Sentence>, clauses: &mut Vec<(String, char)>) {
    if !clauses.is_empty() {
        sentences.push(Sentence { clauses: std::mem::take(clauses) });
    }
}

impl Sentence {
    /// What espeak-ng is given: one paragraph for each clause.
    pub fn for_espeak(&self) -> String {
        let clauses: Vec<&str> = self.clauses.iter().map(|(text, _)| text.as_str()).collect();
        clauses.join("\n\n")
    }

    /// Phonemes with their marks, from espeak-ng's output, a line for each clause. Where it cut otherwise, only the
    /// last mark is kept.
    pub fn phonemes(&self, output: &str) -> String {
        let lines: Vec<String> = output.lines().map(strip_flags).filter(|line| !line.is_empty()).collect();
        let last = self.clauses.last().map_or('.', |(_, mark)| *mark);
        if lines.len() != self.clauses.len() {
            return format!("{}{last}", lines.join(" "));
        }
        let marked: Vec<String> =
            lines.iter().zip(&self.clauses).map(|(line, (_, mark))| format!("{line}{mark}")).collect();
        marked.join(" ")
    }

    /// The text itself, for voices that take letters.
    pub fn letters(&self) -> String {
        let marked: Vec<String> = self.clauses.iter().map(|(text, mark)| format!("{text}{mark}")).collect();
        marked.join(" ").to_lowercase()
    }
}

/// Without the `(fr)` that marks words of other languages.
fn strip_flags(line: &str) -> String {
    let mut depth = 0;
    let kept = line.chars().filter(|c| {
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => {
                depth -= 1;
                return false;
            }
            _ => {}
        }
        depth == 0
    });
    kept.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn voice(extra: Value, speaker: &str) -> Result<Voice, String> {
        let mut json = json!({"phoneme_id_map": {"_": [0], "^": [1], "$": [2], " ": 3, "a": [10], "g̃": [11, 12], "g": [13], ".": [14]}});
        json.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Voice::parse(&json, speaker)
    }

    #[test]
    fn phonemes_become_padded_numbers_and_long_ones_win() {
        let voice = voice(json!({}), "").unwrap();
        assert_eq!(voice.ids("ag̃ gə."), [1, 0, 10, 0, 11, 12, 0, 3, 0, 13, 0, 14, 0, 2]);
        assert_eq!((voice.sample_rate, voice.espeak_voice.as_deref()), (22_050, Some("en-us")));
        assert_eq!(voice.speaker, None);
    }

    #[test]
    fn speakers_are_found_by_name_and_number() {
        let many = json!({"num_speakers": 3, "speaker_id_map": {"low": 1}, "audio": {"sample_rate": 16000}});
        assert_eq!(voice(many.clone(), "").unwrap().speaker, Some(0));
        assert_eq!(voice(many.clone(), "low").unwrap().speaker, Some(1));
        assert_eq!(voice(many.clone(), "2").unwrap().speaker, Some(2));
        assert!(voice(many, "3").unwrap_err().contains("no speaker"));
        assert!(voice(json!({"phoneme_id_map": {}}), "").unwrap_err().contains("lacks"));
    }

    #[test]
    fn text_is_cut_at_its_marks_but_not_in_numbers() {
        let cut = sentences("Well, version 3.5 is out: good! Why?  ... \u{7}And then");
        let marks: Vec<Vec<(&str, char)>> =
            cut.iter().map(|s| s.clauses.iter().map(|(t, m)| (t.as_str(), *m)).collect()).collect();
        assert_eq!(
            marks,
            [
                vec![("Well", ','), ("version 3.5 is out", ':'), ("good", '!')],
                vec![("Why", '?')],
                vec![("And then", '.')]
            ]
        );
        assert!(sentences(" ... ").is_empty());
        assert_eq!(sentences(&"a, ".repeat(400)).len(), 3, "a sentence without an end is cut at a comma");
    }

    #[test]
    fn marks_go_to_the_lines_of_espeak_and_flags_go_away() {
        let sentence = &sentences("Hello, Jean?")[0];
        assert_eq!(sentence.phonemes("həlˈoʊ\n (fr)ʒˈɑ̃(en)\n"), "həlˈoʊ, ʒˈɑ̃?");
        assert_eq!(sentence.phonemes("one\ntwo\nthree"), "one two three?");
        assert_eq!(sentence.letters(), "hello, jean?");
    }
}
