//! TLS 1.3 of the endpoint: a certificate of the enrolment CA, and client certificates of the same CA where
//! one is shown. A node whose certificate ended within the grace window is let in, to renew.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use edgebus_bus::NodeName;
use edgebus_linkproto::Hash;
use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use crate::ca::{Ca, NODE_PREFIX, NODES};

/// Who shows a certificate of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeName,
    /// SHA-256 over the public key, hex.
    pub key_hash: String,
    pub until: Timestamp,
}

/// Why a certificate of our CA is no node's.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("the client certificate cannot be read")]
    Der,
    #[error("the client certificate is for {0:?}, not for {NODE_PREFIX}<name> of {NODES}")]
    Subject(String),
    #[error("the client certificate names an impossible node")]
    Name(#[from] edgebus_bus::NameError),
}

/// Reads the node from a certificate that was verified already.
pub fn peer(cert: &CertificateDer<'_>) -> Result<Peer, PeerError> {
    let (_, cert) = X509Certificate::from_der(cert).map_err(|_| PeerError::Der)?;
    let subject = cert.subject();
    let common = one(subject.iter_common_name());
    let organisation = one(subject.iter_organization());
    let node = match (common, organisation) {
        (Some(common), Some(NODES)) => common.strip_prefix(NODE_PREFIX),
        _ => None,
    };
    let node =
        node.ok_or_else(|| PeerError::Subject(subject.to_string().chars().take(200).collect()))?;
    let until = cert.validity().not_after.timestamp();
    Ok(Peer {
        node: NodeName::new(node)?,
        key_hash: Hash::of_bytes(&cert.public_key().subject_public_key.data).to_hex(),
        until: Timestamp::from_second(until).map_err(|_| PeerError::Der)?,
    })
}

/// The only attribute of its sort; several would leave open which one counts.
fn one<'a>(mut found: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    let first = found.next()?.as_str().ok()?;
    found.next().is_none().then_some(first)
}

/// The endpoint's side of every handshake, with a fresh certificate.
pub fn server(ca: &Ca, names: &[String], grace: Duration) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.cert_der().clone())
        .context("trust the enrolment CA")?;
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("verify client certificates")?;
    let (cert, key) = ca.endpoint(names, Timestamp::now())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .with_client_cert_verifier(Arc::new(Verifier { inner, grace }))
        // The CA goes along: a joining node knows it by its hash only.
        .with_single_cert(vec![cert, ca.cert_der().clone()], key)
        .context("the endpoint's certificate")?;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    grace: Duration,
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        // Enrolment comes without one; the link's path demands it.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let result = self
            .inner
            .verify_client_cert(end_entity, intermediates, now);
        let ended = matches!(
            result,
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            ))
        );
        let Some(peer) = ended.then(|| peer(end_entity).ok()).flatten() else {
            return result;
        };
        let end = u64::try_from(peer.until.as_second()).unwrap_or(0);
        if now.as_secs().saturating_sub(end) > self.grace.as_secs() {
            return result;
        }
        let then = UnixTime::since_unix_epoch(Duration::from_secs(end.saturating_sub(1)));
        self.inner
            .verify_client_cert(end_entity, intermediates, then)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject as _;

    fn issue(ca: &Ca, at: Timestamp, life: u64) -> (CertificateDer<'static>, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::default();
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        let request = Ca::request(&csr).unwrap();
        let hash = request.key_hash.clone();
        let issued = ca
            .sign_node(request, "gw-1", at, Duration::from_secs(life))
            .unwrap();
        (
            CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap(),
            hash,
        )
    }

    fn verifier(ca: &Ca, grace: u64) -> Verifier {
        let mut roots = RootCertStore::empty();
        roots.add(ca.cert_der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        Verifier {
            inner,
            grace: Duration::from_secs(grace),
        }
    }

    #[test]
    fn a_certificate_names_its_node_and_its_key() {
        let ca = Ca::generate("t", Timestamp::now()).unwrap();
        let (cert, hash) = issue(&ca, Timestamp::now(), 60);
        let peer = peer(&cert).unwrap();
        assert_eq!(peer.node.as_str(), "gw-1");
        assert_eq!(peer.key_hash, hash);
        assert!(matches!(
            super::peer(ca.cert_der()),
            Err(PeerError::Subject(_))
        ));
    }

    #[test]
    fn a_certificate_that_ended_counts_within_the_grace_window_only() {
        let ca = Ca::generate("t", Timestamp::now()).unwrap();
        let then = Timestamp::now() - jiff::SignedDuration::from_secs(1000);
        let (cert, _) = issue(&ca, then, 100);
        let now = UnixTime::now();
        assert!(
            verifier(&ca, 1200)
                .verify_client_cert(&cert, &[], now)
                .is_ok()
        );
        assert!(
            verifier(&ca, 10)
                .verify_client_cert(&cert, &[], now)
                .is_err()
        );
        let other = Ca::generate("t", Timestamp::now()).unwrap();
        assert!(
            verifier(&other, 1200)
                .verify_client_cert(&cert, &[], now)
                .is_err()
        );
    }
}
