//! TLS 1.3, both sides known. There is no path around the checks: joining pins the CA by its hash inside the
//! verifier, everything later by the CA certificate that join kept.

use std::sync::Arc;

use edgebus_linkproto::Hash;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, OtherError,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum TlsSetupError {
    #[error("the CA certificate cannot be used")]
    Ca(#[source] TlsError),
    #[error("TLS cannot be set up with the node's key and certificate")]
    Client(#[source] TlsError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// For the link: the pinned CA, the node's certificate.
pub fn client(
    ca: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(TlsSetupError::Ca)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsSetupError::Client)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(TlsSetupError::Client)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// For joining: any chain that ends in the CA certificate with this hash, for the name that was dialled.
pub fn joining(ca_hash: Hash) -> Result<ClientConfig, TlsSetupError> {
    let provider = provider();
    let verifier = PinnedCa {
        ca_hash,
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsSetupError::Client)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Why a server's chain is not ours.
#[derive(Error)]
#[error(
    "the server's certificate chain has no CA with the hash in the join token: wrong server, an old token, \
     or somebody in between"
)]
struct NoSuchCa;

/// rustls shows the causes of its errors in their Debug form, also to people.
impl std::fmt::Debug for NoSuchCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[derive(Debug)]
struct PinnedCa {
    ca_hash: Hash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let ca = intermediates
            .iter()
            .find(|cert| Hash::of_bytes(cert) == self.ca_hash)
            .ok_or_else(|| {
                TlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(
                    NoSuchCa,
                ))))
            })?;
        // From here on the usual rules hold: signature, dates, name.
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|e| TlsError::General(e.to_string()))?;
        let rest: Vec<CertificateDer<'_>> = intermediates
            .iter()
            .filter(|cert| *cert != ca)
            .cloned()
            .collect();
        verifier.verify_server_cert(end_entity, &rest, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
