//! The keys of a connection, as its DTLS handshake gives them: str0m keeps them to itself, but takes its DTLS from whoever it
//! is told. What it is told here is its own, with an ear on what comes out.
//!
//! Source: RFC 5764 section 4.2.

use std::{
    cell::RefCell,
    sync::{Arc, OnceLock},
    time::Instant,
};

use str0m::crypto::{
    CryptoError, CryptoProvider,
    dtls::{
        DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial, ProtocolVersion,
        SrtpProfile,
    },
};

/// What a handshake agreed on. Its Debug says nothing.
pub struct Agreed {
    pub profile: SrtpProfile,
    pub material: KeyingMaterial,
    /// Whether we were the client of the handshake: whose half of the material is ours.
    pub is_client: bool,
}

/// Where it will be found, once there.
pub type Keying = Arc<OnceLock<Agreed>>;

thread_local! {
    /// Of the DTLS instance that was made last on this thread.
    static NEWEST: RefCell<Option<Keying>> = const { RefCell::new(None) };
}

/// Makes a connection by `build`, whose configuration has the [`provider`], and tells where its keys will be.
pub fn watched<T>(build: impl FnOnce() -> T) -> (T, Keying) {
    NEWEST.take();
    let built = build();
    (built, NEWEST.take().unwrap_or_default())
}

/// str0m's own cryptography, with DTLS that is listened to.
pub fn provider() -> CryptoProvider {
    CryptoProvider { dtls_provider: &Listening, ..str0m::crypto::from_feature_flags() }
}

#[derive(Debug)]
struct Listening;

impl DtlsProvider for Listening {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = str0m::crypto::from_feature_flags().dtls_provider.new_dtls(certificate, now, version, mtu)?;
        let keying = Keying::default();
        NEWEST.set(Some(keying.clone()));
        Ok(Box::new(Overheard { inner, keying }))
    }
}

struct Overheard {
    inner: Box<dyn DtlsInstance>,
    keying: Keying,
}

impl std::fmt::Debug for Overheard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Overheard")
    }
}

impl DtlsInstance for Overheard {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.inner.poll_output(buffer);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            let is_client = self.inner.is_active();
            // Once for each connection: what a second handshake gave, str0m would not use either.
            let material = KeyingMaterial::new(material);
            let _ = self.keying.set(Agreed { profile: *profile, material, is_client });
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}
