//! Time-limited credentials that a relay can check without having seen them: the user name holds the end of its own
//! time, the password is its MAC under a secret that issuer and relay share (draft-uberti-behave-turn-rest-00, which
//! coturn calls `use-auth-secret`).

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::auth::Secret;

/// What a client shows to a relay. `Debug` prints neither part.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `END:RANDOM`: Unix seconds, and what tells one client from another. Nothing in it says who it is.
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

impl Credentials {
    /// Good until `end`, Unix seconds; `tag` tells them from others of the same second.
    pub fn new(secret: &Secret, end: u64, tag: u64) -> Self {
        let username = format!("{end}:{tag:016x}");
        let password = password(secret, &username);
        Self { username, password }
    }
}

/// The password that belongs to this user name.
pub fn password(secret: &Secret, username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

/// Whom a user name is of, whenever it ends: new credentials are no new person.
pub fn user(username: &str) -> &str {
    username.split_once(':').map_or(username, |(_, user)| user)
}

/// When a user name's time is over, Unix seconds; `None` where it says no time.
pub fn end(username: &str) -> Option<u64> {
    let digits = username.split(':').next()?;
    // `parse` would take a sign, too.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passwords_are_those_that_other_relays_compute() {
        // echo -n "$username" | openssl dgst -sha1 -hmac "$secret" -binary | base64
        for (secret, username, wanted) in [
            ("north", "1800000000:00000000000000ff", "fE65CX67LgZgKKsbGAyqZtPX3yo="),
            ("north", "1800000001:00000000000000ff", "tT604EstF9KBo+ERDfDJE0T9Atg="),
            ("south", "1800000000:00000000000000ff", "BJANcmufqA+laSC9dlnXbkgf0ZM="),
        ] {
            assert_eq!(password(&secret.into(), username), wanted, "{secret} {username}");
        }
        let made = Credentials::new(&"north".into(), 1_800_000_000, 255);
        assert_eq!(made.username, "1800000000:00000000000000ff");
        assert_eq!(made.password, password(&"north".into(), &made.username));
        assert_eq!(format!("{made:?}"), "Credentials(***)");
    }

    #[test]
    fn the_end_is_read_from_the_user_name() {
        for (username, wanted) in [
            ("1800000000:ff", Some(1_800_000_000)),
            ("1800000000", Some(1_800_000_000)),
            ("", None),
            (":1", None),
            ("+1:a", None),
            ("-1:a", None),
            ("ada:1800000000", None),
            ("99999999999999999999:a", None),
        ] {
            assert_eq!(end(username), wanted, "{username}");
        }
    }

    proptest! {
        #[test]
        fn any_user_name_is_read_without_panic(name in ".*") {
            let _ = end(&name);
        }

        #[test]
        fn what_is_issued_is_read_again(at: u64, tag: u64) {
            prop_assert_eq!(end(&Credentials::new(&"s".into(), at, tag).username), Some(at));
        }
    }
}
