//! Finds the line of a key in a YAML text, for error messages.
//!
//! Reads block style by indentation, which is what configuration files are written in; for a key inside `{…}` it
//! gives the line of the nearest key above it. It is no parser: the text was parsed before, and a wrong guess costs
//! a reader one glance.

/// Line, from 1, of the key at `path`, or of its nearest ancestor that is found.
pub fn line_of(text: &str, path: &[&str]) -> Option<usize> {
    let mut open: Vec<(usize, &str)> = Vec::new();
    let mut best = (0, None);
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start_matches(' ');
        if content.is_empty() || content.starts_with(['#', '-']) {
            continue;
        }
        let Some(key) = key_of(content) else { continue };
        let indent = line.len() - content.len();
        while open.last().is_some_and(|(at, _)| *at >= indent) {
            open.pop();
        }
        open.push((indent, key));
        let depth = open.len();
        if depth > best.0 && depth <= path.len() && open.iter().map(|(_, key)| *key).eq(path[..depth].iter().copied()) {
            best = (depth, Some(number + 1));
        }
    }
    best.1
}

/// The key of a line such as `key: value`, `"key": value` or `key:`.
fn key_of(content: &str) -> Option<&str> {
    let (key, rest) = content.split_once(':')?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    Some(key.trim_end().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# head\nserver:\n  log:\n    filter: info  # why\n\n  http_listen: \"0.0.0.0:7880\"\nrtc: {workers: 1}\nauth:\n  keys:\n    \"a b\": c\n";

    #[test]
    fn a_key_is_found_under_its_parents() {
        assert_eq!(line_of(TEXT, &["server"]), Some(2));
        assert_eq!(line_of(TEXT, &["server", "log", "filter"]), Some(4));
        assert_eq!(line_of(TEXT, &["server", "http_listen"]), Some(6));
        assert_eq!(line_of(TEXT, &["auth", "keys", "a b"]), Some(10));
    }

    #[test]
    fn a_key_in_flow_style_gives_its_parents_line() {
        assert_eq!(line_of(TEXT, &["rtc", "workers"]), Some(7));
        assert_eq!(line_of(TEXT, &["store", "url"]), None);
    }
}
