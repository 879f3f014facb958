use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsConnector;

use super::*;

struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> Config {
        Config { cert_file: self.dir.path().join("cert.pem"), key_file: self.dir.path().join("key.pem") }
    }

    /// Writes a new pair and returns the certificate.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(self.config().cert_file, cert.pem()).unwrap();
        std::fs::write(self.config().key_file, key.serialize_pem()).unwrap();
        cert.der().clone()
    }
}

/// A client that trusts this certificate alone, and says whether it was let in.
async fn client_is_served(tls: &Tls, trusted: &CertificateDer<'static>) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (ours, theirs) = duplex(16_384);
    let tls = tls.clone();
    let server = tokio::spawn(async move {
        let Ok(mut stream) = tls.accept(ours).await else { return };
        let _ = stream.write_all(b"hello").await;
        let _ = stream.shutdown().await;
    });
    let connector = TlsConnector::from(Arc::new(client));
    let served = match connector.connect("localhost".try_into().unwrap(), theirs).await {
        Ok(mut stream) => {
            let mut said = String::new();
            stream.read_to_string(&mut said).await.is_ok() && said == "hello"
        }
        Err(_) => false,
    };
    server.await.unwrap();
    served
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_a_broken_one_leaves_the_old() {
    let files = Files::new();
    let first = files.issue(|_| {});
    let tls = Tls::load(&files.config()).unwrap();
    assert!(client_is_served(&tls, &first).await);
    assert!(!tls.reload_if_changed().unwrap(), "nothing was written");

    std::fs::write(files.config().key_file, "half a fi").unwrap();
    assert!(matches!(tls.reload_if_changed(), Err(TlsError::NoKey(_))));
    assert!(client_is_served(&tls, &first).await, "the old one still serves");

    let second = files.issue(|params| params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into())));
    assert!(tls.reload_if_changed().unwrap());
    assert!(!client_is_served(&tls, &first).await);
    assert!(client_is_served(&tls, &second).await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let files = Files::new();
    files.issue(|_| {});
    let tls = Tls::load(&files.config()).unwrap();
    let (ours, _theirs) = duplex(1024);
    let began = tokio::time::Instant::now();
    assert_eq!(tls.accept(ours).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() <= Duration::from_secs(6));
}

#[test]
fn every_mistake_says_which_file_and_what_to_do() {
    let told = |config: &Config| Tls::load(config).expect_err("is wrong").to_string();
    let files = Files::new();
    let config = files.config();
    let missing = told(&config);
    assert!(missing.contains("server.tls.cert_file") && missing.contains("cert.pem"), "{missing}");

    files.issue(|_| {});
    let other = Files::new();
    other.issue(|_| {});
    let mixed = Config { key_file: other.config().key_file, ..config.clone() };
    assert!(told(&mixed).contains("is not that of the certificate"), "{}", told(&mixed));

    let swapped = Config { cert_file: config.key_file.clone(), key_file: config.cert_file.clone() };
    assert!(told(&swapped).contains("no certificate"), "{}", told(&swapped));
    let twice = Config { key_file: config.cert_file.clone(), ..config.clone() };
    assert!(told(&twice).contains("no private key"), "{}", told(&twice));

    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&config.cert_file, pem).unwrap();
    assert!(matches!(Tls::load(&config), Err(TlsError::Unusable(..))));
    let key = std::fs::read_to_string(&config.key_file).unwrap();
    assert!(!told(&config).contains(key.lines().nth(1).unwrap()), "the key is not repeated");
}

#[test]
fn a_certificate_out_of_its_time_serves_but_is_told_with_its_date() {
    let files = Files::new();
    files.issue(|params| {
        params.not_before = date_time_ymd(2020, 1, 2);
        params.not_after = date_time_ymd(2021, 3, 4);
    });
    let validity = Tls::load(&files.config()).unwrap().validity();
    let at = |text: &str| text.parse::<Time>().unwrap().to_system_time();
    assert_eq!(validity.lapse(at("2020-06-01T00:00:00Z")), None);
    for (now, lapse, date) in [
        ("2020-01-01T00:00:00Z", Lapse::NotYet, "2020-01-02"),
        ("2021-02-28T00:00:00Z", Lapse::Soon, "2021-03-04"),
        ("2021-03-05T00:00:00Z", Lapse::Expired, "2021-03-04"),
    ] {
        assert_eq!(validity.lapse(at(now)), Some(lapse));
        let warning = validity.warning(at(now)).unwrap();
        assert!(warning.contains(date), "{warning}");
    }
}
