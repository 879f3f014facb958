//! What a person who started the server reads on the terminal: where to go, what hears, what speaks.

use std::{fmt::Write, net::SocketAddr};

use crate::{config::Config, http};

/// One line each about the interviewer's parts.
pub(super) struct Lines {
    pub hears: String,
    pub speaks: String,
    pub thinks: String,
}

pub(super) fn print(config: &Config, dev: bool, address: SocketAddr, lines: &Lines) {
    print!("{}", text(config, dev, address, lines));
}

fn text(config: &Config, dev: bool, address: SocketAddr, lines: &Lines) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<10}{value}");
    };
    line("Open", &open_address(config, address));
    if !http::page_is_built() {
        line("", "(this build holds no web page: run `make web` and start again)");
    }
    line("Hears", after_colon(&lines.hears));
    line("Speaks", after_colon(&lines.speaks));
    line("Words", after_colon(&lines.thinks));
    line(
        "Metrics",
        &match config.server.metrics_listen {
            Some(at) => format!("http://{}/metrics", reachable(at)),
            None => format!("{}://{}/metrics", scheme(config), reachable(address)),
        },
    );
    if dev {
        line("API key", "devkey, with the secret `secret` (development mode: not for servers that others can reach)");
    }
    format!("\nViva {} is running. Ctrl+C stops it.\n\n{out}\n", env!("CARGO_PKG_VERSION"))
}

/// The parts begin their lines with what they are; here the column says that.
fn after_colon(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(_, rest)| rest)
}

fn open_address(config: &Config, address: SocketAddr) -> String {
    match config.server.public_url.as_str() {
        "" => format!("{}://{}", scheme(config), reachable(address)),
        url => url.replacen("ws", "http", 1),
    }
}

fn scheme(config: &Config) -> &'static str {
    if config.server.tls.is_on() { "https" } else { "http" }
}

/// The address as a browser on this machine can use it. Browsers give the microphone to `localhost` without TLS.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_told_as_localhost() {
        assert_eq!(reachable(([0, 0, 0, 0], 7880).into()), "localhost:7880");
        assert_eq!(reachable(([10, 0, 0, 1], 7880).into()), "10.0.0.1:7880");
    }

    #[test]
    fn the_public_address_is_opened_by_http() {
        let mut config = Config::default();
        config.server.public_url = "wss://viva.example.org".into();
        assert_eq!(open_address(&config, ([0, 0, 0, 0], 1).into()), "https://viva.example.org");
        config.server.public_url = "http://a".into();
        assert_eq!(open_address(&config, ([0, 0, 0, 0], 1).into()), "http://a");
    }

    #[test]
    fn with_a_certificate_it_is_opened_by_https() {
        let mut config = Config::default();
        config.server.tls.cert_file = "cert.pem".into();
        assert_eq!(open_address(&config, ([0, 0, 0, 0], 7880).into()), "https://localhost:7880");
    }
}
