//! TLS by certificate files: read, checked, and read again when they change, without losing a connection.
//!
//! Knows nothing of what is spoken inside. Cheap to clone: every port that speaks TLS has one.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    InconsistentKeys, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_cert::{Certificate, der::Decode, time::Time};

/// Time for a handshake: four round trips of a slow phone, and no place to hide for a slowloris.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A certificate that ends sooner than this is told in the log: whoever renews it should have done so by then.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Certificate and key; both or none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The certificate and those between it and its root, PEM; empty: no TLS.
    pub cert_file: PathBuf,
    /// The certificate's private key, PEM.
    pub key_file: PathBuf,
}

impl Config {
    pub fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key} {path}: {source}; check the path and who may read it")]
    Unreadable { key: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} holds no certificate: it must be PEM, with BEGIN CERTIFICATE")]
    NoCertificate(PathBuf),
    #[error("{0} holds no private key: it must be PEM, with BEGIN PRIVATE KEY, and without a passphrase")]
    NoKey(PathBuf),
    #[error("the key in {key} is not that of the certificate in {cert}: name the pair that was issued together")]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("the certificate in {0} cannot be used: {1}")]
    Unusable(PathBuf, String),
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    not_before: Time,
    not_after: Time,
}

/// What is wrong with a certificate's time. Clients will refuse it, but a server that does not start helps nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    Expired,
    NotYet,
    Soon,
}

impl Validity {
    pub fn lapse(&self, now: SystemTime) -> Option<Lapse> {
        let (from, until) = (self.not_before.to_system_time(), self.not_after.to_system_time());
        match () {
            () if now > until => Some(Lapse::Expired),
            () if now < from => Some(Lapse::NotYet),
            () if now + EXPIRES_SOON > until => Some(Lapse::Soon),
            () => None,
        }
    }

    /// One line for the log; `None` where all is well.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        Some(match self.lapse(now)? {
            Lapse::Expired => format!("the TLS certificate expired at {}: clients refuse it; renew it", self.not_after),
            Lapse::NotYet => {
                format!("the TLS certificate is not valid before {}: check this machine's clock", self.not_before)
            }
            Lapse::Soon => format!("the TLS certificate expires at {}: renew it", self.not_after),
        })
    }
}

/// Accepts TLS with the newest certificate that could be read.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    config: Config,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Current {
    provider: Arc<CryptoProvider>,
    loaded: RwLock<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    validity: Validity,
    stamp: Stamp,
}

/// What tells that the files were written anew.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([Option<(SystemTime, u64)>; 2]);

impl Stamp {
    fn of(config: &Config) -> Self {
        Self([&config.cert_file, &config.key_file].map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        }))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded.read().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

impl Tls {
    /// Reads and checks both files. A certificate out of its time is taken: see [`Self::validity`].
    pub fn load(config: &Config) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let loaded = RwLock::new(load(config, &provider)?);
        let current = Arc::new(Current { provider: provider.clone(), loaded });
        let unusable = |error: rustls::Error| TlsError::Unusable(config.cert_file.clone(), error.to_string());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        server.alpn_protocols = vec![b"http/1.1".to_vec(), b"stun.turn".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), current, config: config.clone() })
    }

    pub fn validity(&self) -> Validity {
        self.current.loaded.read().unwrap_or_else(PoisonError::into_inner).validity
    }

    /// Reads the files again if they changed since; false where they did not. What cannot be used leaves everything as
    /// it was.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let stamp = Stamp::of(&self.config);
        if self.current.loaded.read().unwrap_or_else(PoisonError::into_inner).stamp == stamp {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    /// Reads the files again.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = load(&self.config, &self.current.provider)?;
        *self.current.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// The handshake, within its time. Errors are the client's and of no interest to others.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(done) => done,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")),
        }
    }
}

fn load(config: &Config, provider: &CryptoProvider) -> Result<Loaded, TlsError> {
    // Before the files are read: what is written in between is read again.
    let stamp = Stamp::of(config);
    let (cert, key) = (&config.cert_file, &config.key_file);
    let chain_pem = read("server.tls.cert_file", cert)?;
    let key_pem = read("server.tls.key_file", key)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain_pem).filter_map(Result::ok).collect();
    let first = chain.first().ok_or_else(|| TlsError::NoCertificate(cert.clone()))?;
    let parsed = Certificate::from_der(first).map_err(|error| TlsError::Unusable(cert.clone(), error.to_string()))?;
    let validity = parsed.tbs_certificate().validity();
    let validity = Validity { not_before: validity.not_before, not_after: validity.not_after };
    let der = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| TlsError::NoKey(key.clone()))?;
    let key = CertifiedKey::from_der(chain, der, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { cert: cert.clone(), key: key.clone() }
        }
        // Says nothing of the key itself.
        error => TlsError::Unusable(cert.clone(), error.to_string()),
    })?;
    Ok(Loaded { key: Arc::new(key), validity, stamp })
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { key, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
