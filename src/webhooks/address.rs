//! An address to send to. Its path or query may be a secret, so it prints no more than scheme and host.

use std::fmt;

use reqwest::Url;
use serde::{Deserialize, Serialize, Serializer};

/// An `http` or `https` address.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// The address itself, for the one place that needs it.
    pub(super) fn url(&self) -> Result<Url, &'static str> {
        let url = Url::parse(&self.0).map_err(|_| "is no address, as https://example.org/hooks")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must begin with http:// or https://");
        }
        // They would become a second Authorization header beside the signature.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or password: the Authorization header carries the signature");
        }
        Ok(url)
    }

    /// What is wrong with it, without repeating it.
    pub fn mistake(&self) -> Option<&'static str> {
        self.url().err()
    }

    fn printable(&self) -> String {
        let Ok(url) = self.url() else { return "***".into() };
        let rest = if url.path() == "/" && url.query().is_none() { "" } else { "/***" };
        format!("{}{rest}", url.origin().ascii_serialization())
    }
}

impl From<&str> for Address {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.printable())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.printable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in ["", "example.org/hooks", "ftp://example.org", "https://", "https://me:pw@example.org/", "/hooks"]
        {
            assert!(Address::from(wrong).mistake().is_some(), "{wrong}");
        }
        for right in ["http://127.0.0.1:8080/hooks", "https://example.org", "https://example.org/a?key=b"] {
            assert_eq!(Address::from(right).mistake(), None, "{right}");
        }
    }

    #[test]
    fn what_is_printed_has_no_secret() {
        for (url, printed) in [
            ("https://example.org:8443/services/T0/s3cret", "https://example.org:8443/***"),
            ("https://example.org?key=s3cret", "https://example.org/***"),
            ("https://example.org", "https://example.org"),
            ("https://me:s3cret@example.org", "***"),
            ("s3cret", "***"),
        ] {
            let address = Address::from(url);
            assert_eq!(format!("{address:?}"), printed);
            assert_eq!(serde_json::to_value(&address).unwrap(), printed);
        }
    }
}
