//! The enrolment CA: signs nodes' certificates and the endpoint's own. Never the cluster's client CA.

use std::time::Duration;

use edgebus_linkproto::Hash;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
const ENDPOINT_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of gateways are late after a power cut: certificates begin that much before their issue, or an
/// eighth of their life, so that nodes reckon the time of renewal rightly.
const BACKDATE: Duration = Duration::from_secs(3600);
/// Organisation of every node, as kubelets have it.
pub const NODES: &str = "system:nodes";
/// Common name: this and the node's name.
pub const NODE_PREFIX: &str = "system:node:";

#[derive(Debug, Error)]
pub enum CaError {
    #[error("the stored enrolment CA cannot be read")]
    Stored(#[source] rcgen::Error),
    #[error("the stored enrolment CA certificate is no PEM certificate")]
    StoredPem,
    #[error("making the enrolment CA failed")]
    Make(#[source] rcgen::Error),
    #[error("the certificate request is not valid: {0}")]
    Request(#[source] rcgen::Error),
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name {
        name: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("signing a certificate failed")]
    Sign(#[source] rcgen::Error),
}

/// The CA with its key.
pub struct Ca {
    cert_pem: String,
    cert: CertificateDer<'static>,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
    mac_key: [u8; 32],
}

/// What the request proves and asks for.
pub struct Request {
    inner: CertificateSigningRequestParams,
    /// SHA-256 over the public key, hex.
    pub key_hash: String,
}

/// A certificate just signed.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert_pem: String,
    /// Hex.
    pub serial: String,
    pub until: Timestamp,
}

fn at(time: Timestamp, params: &mut CertificateParams, life: Duration) -> Timestamp {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let second = u64::try_from(time.as_second()).unwrap_or(0);
    let until = second.saturating_add(life.as_secs());
    let backdate = BACKDATE.min(life / 8);
    params.not_before = epoch + Duration::from_secs(second.saturating_sub(backdate.as_secs()));
    params.not_after = epoch + Duration::from_secs(until);
    let until = i64::try_from(until).unwrap_or(i64::MAX);
    Timestamp::from_second(until).unwrap_or(Timestamp::MAX)
}

impl Ca {
    /// A new CA; `about` goes into its name.
    pub fn generate(about: &str, now: Timestamp) -> Result<Ca, CaError> {
        let key = KeyPair::generate().map_err(CaError::Make)?;
        let mut params = CertificateParams::default();
        at(now, &mut params, CA_LIFE);
        params.distinguished_name = name(&format!("edgebus enrolment CA {about}"), None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(CaError::Make)?;
        Ca::load(&cert.pem(), &key.serialize_pem())
    }

    /// From what [`Ca::cert_pem`] and [`Ca::key_pem`] gave.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Ca, CaError> {
        let key = KeyPair::from_pem(key_pem).map_err(CaError::Stored)?;
        let mut mac = Sha256::new();
        mac.update(b"edgebus: hashes of sealed objects, v1");
        mac.update(key.serialized_der());
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(CaError::Stored)?;
        let cert =
            CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| CaError::StoredPem)?;
        Ok(Ca {
            cert_pem: cert_pem.to_owned(),
            cert,
            key_pem: key_pem.to_owned(),
            issuer,
            mac_key: mac.finalize().into(),
        })
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    pub fn cert_der(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// What join tokens carry.
    pub fn hash(&self) -> Hash {
        Hash::of_bytes(&self.cert)
    }

    /// Checks a certificate request: its signature proves that the asker has the key.
    pub fn request(csr_pem: &str) -> Result<Request, CaError> {
        let inner = CertificateSigningRequestParams::from_pem(csr_pem).map_err(CaError::Request)?;
        let key_hash = Hash::of_bytes(rcgen::PublicKeyData::der_bytes(&inner.public_key)).to_hex();
        Ok(Request { inner, key_hash })
    }

    /// Signs for exactly this node, whatever else the request asked for.
    pub fn sign_node(
        &self,
        request: Request,
        node: &str,
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, CaError> {
        let mut params = CertificateParams::default();
        let until = at(now, &mut params, life);
        let serial = serial();
        params.distinguished_name = name(&format!("{NODE_PREFIX}{node}"), Some(NODES));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = CertificateSigningRequestParams {
            params,
            public_key: request.inner.public_key,
        }
        .signed_by(&self.issuer)
        .map_err(CaError::Sign)?;
        Ok(Issued {
            cert_pem: signed.pem(),
            serial: hex(&serial),
            until,
        })
    }

    /// A certificate and key for the endpoint that nodes dial.
    pub fn endpoint(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CaError> {
        for one in names {
            CertificateParams::new(vec![one.clone()]).map_err(|source| CaError::Name {
                name: one.clone(),
                source,
            })?;
        }
        let mut params = CertificateParams::new(names.to_vec()).map_err(CaError::Sign)?;
        at(now, &mut params, ENDPOINT_LIFE);
        params.distinguished_name = name("edgebus cloud-bridge", None);
        params.serial_number = Some(SerialNumber::from_slice(&serial()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let cert = params
            .signed_by(&key, &self.issuer)
            .map_err(CaError::Sign)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((cert.der().clone(), key))
    }

    /// HMAC-SHA256 under a key derived from the CA's: tells versions of a secret apart and nothing else.
    pub fn mac(&self, parts: &[&[u8]]) -> Hash {
        let mut inner = Sha256::new();
        inner.update(pad(&self.mac_key, 0x36));
        for part in parts {
            inner.update((part.len() as u64).to_be_bytes());
            inner.update(part);
        }
        let mut outer = Sha256::new();
        outer.update(pad(&self.mac_key, 0x5c));
        outer.update(inner.finalize());
        Hash(outer.finalize().into())
    }
}

fn pad(key: &[u8; 32], byte: u8) -> [u8; 64] {
    let mut out = [byte; 64];
    for (out, key) in out.iter_mut().zip(key) {
        *out ^= key;
    }
    out
}

fn name(common: &str, organisation: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name.push(DnType::CommonName, common);
    name
}

/// Random, positive, 16 bytes.
fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = random();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial
}

/// Bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    fn csr(common: &str) -> (KeyPair, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.distinguished_name = name(common, Some("system:masters"));
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        (key, pem)
    }

    #[test]
    fn a_node_gets_its_own_name_whatever_it_asked_for() {
        let ca = Ca::generate("test", Timestamp::now()).unwrap();
        let (_, pem) = csr("admin");
        let request = Ca::request(&pem).unwrap();
        let issued = ca
            .sign_node(request, "gw-1", Timestamp::now(), Duration::from_secs(60))
            .unwrap();
        let der = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
        let (_, cert) = X509Certificate::from_der(&der).unwrap();
        let subject = cert.subject().to_string();
        assert_eq!(subject, "O=system:nodes, CN=system:node:gw-1");
        assert!(cert.subject_alternative_name().unwrap().is_none());
        assert!(!cert.is_ca());
        assert_eq!(cert.raw_serial_as_string().replace(':', ""), issued.serial);
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (_, pem) = csr("gw-1");
        let mut der =
            rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
                .unwrap()
                .to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let body: String = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &der);
        let broken = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
        );
        assert!(matches!(Ca::request(&broken), Err(CaError::Request(_))));
        assert!(Ca::request("").is_err());
        assert!(
            Ca::request(
                "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
            )
            .is_err()
        );
    }

    #[test]
    fn a_stored_ca_is_the_same_ca() {
        let ca = Ca::generate("test", Timestamp::now()).unwrap();
        let again = Ca::load(ca.cert_pem(), ca.key_pem()).unwrap();
        assert_eq!(ca.hash(), again.hash());
        assert_eq!(ca.mac(&[b"a", b"b"]), again.mac(&[b"a", b"b"]));
        assert_ne!(ca.mac(&[b"ab"]), ca.mac(&[b"a", b"b"]));
        let other = Ca::generate("test", Timestamp::now()).unwrap();
        assert_ne!(ca.mac(&[b"a"]), other.mac(&[b"a"]));
    }

    #[test]
    fn a_name_that_cannot_be_in_a_certificate_is_named() {
        let ca = Ca::generate("test", Timestamp::now()).unwrap();
        let error = ca
            .endpoint(&["né".to_owned()], Timestamp::now())
            .unwrap_err()
            .to_string();
        assert!(error.contains("né"), "{error}");
        ca.endpoint(
            &["localhost".to_owned(), "::1".to_owned()],
            Timestamp::now(),
        )
        .unwrap();
    }
}
