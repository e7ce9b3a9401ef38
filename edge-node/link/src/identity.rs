//! Who this node is, read from the files of [`crate::join`]; a renewed pair is used before the proven one.

use std::path::Path;
use std::sync::Arc;

use edgebus_linkproto::Hash;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::files::{self, FilesError, Pinned};
use crate::tls::{self, TlsSetupError};

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("{file}: not a PEM certificate or key: {why}")]
    Pem { file: &'static str, why: String },
    #[error("{file}: {why}")]
    Cert { file: &'static str, why: String },
    #[error("making a key or a certificate request failed")]
    Make(#[source] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
}

impl IdentityError {
    /// This node has not been joined (yet).
    pub fn is_missing(&self) -> bool {
        matches!(self, IdentityError::Files(e) if e.is_missing())
    }
}

/// What matters of the node's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertInfo {
    pub from: Timestamp,
    pub until: Timestamp,
    /// SHA-256 of the certificate.
    pub hash: Hash,
}

impl CertInfo {
    /// When to ask for the next one: at a point between 70 and 90 % of its life that depends on the
    /// certificate alone, so that a restart does not roll the dice again and nodes do not come together.
    pub fn renew_at(&self) -> Timestamp {
        let life = self
            .until
            .as_second()
            .saturating_sub(self.from.as_second())
            .max(0);
        let dice = i64::from(u16::from_be_bytes([self.hash.0[0], self.hash.0[1]]));
        let permille = 700 + dice * 200 / i64::from(u16::MAX);
        let at = self
            .from
            .as_second()
            .saturating_add(life / 1000 * permille)
            .saturating_add(life % 1000 * permille / 1000);
        Timestamp::from_second(at).unwrap_or(self.until)
    }
}

/// Everything that a connection needs.
#[derive(Clone)]
pub struct Identity {
    pub pinned: Pinned,
    pub cert: CertInfo,
    /// The pair was renewed and has not been proven by a connection yet.
    pub is_new: bool,
    pub tls: Arc<ClientConfig>,
}

impl Identity {
    /// Reads the files. With a renewed pair in place that one is taken, unless `proven_only`.
    pub fn load(dir: &Path, proven_only: bool) -> Result<Identity, IdentityError> {
        let pinned = Pinned::load(dir)?;
        finish_promotion(dir)?;
        let is_new = !proven_only && dir.join(files::NEXT_CERT).exists();
        let (key_file, cert_file) = if is_new {
            (files::NEXT_KEY, files::NEXT_CERT)
        } else {
            (files::KEY, files::CERT)
        };
        let key_pem = files::read_secret(dir, key_file)?;
        let cert_pem = files::read(dir, cert_file)?;
        let ca_pem = files::read(dir, files::CA)?;
        let chain = certs(cert_file, &cert_pem)?;
        let cert = cert_info(cert_file, &chain[0])?;
        let mut ca = certs(files::CA, &ca_pem)?;
        let key =
            PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| IdentityError::Pem {
                file: key_file,
                why: e.to_string(),
            })?;
        let tls = Arc::new(tls::client(ca.swap_remove(0), chain, key)?);
        Ok(Identity {
            pinned,
            cert,
            is_new,
            tls,
        })
    }
}

/// Certificates of a PEM file, at least one.
pub fn certs(file: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| IdentityError::Pem {
            file,
            why: e.to_string(),
        })?;
    if certs.is_empty() {
        return Err(IdentityError::Pem {
            file,
            why: "no certificate in it".into(),
        });
    }
    Ok(certs)
}

/// Validity and hash of a certificate.
pub fn cert_info(file: &'static str, cert: &CertificateDer<'_>) -> Result<CertInfo, IdentityError> {
    let parsed = parse(file, cert)?;
    let time = |t: i64| {
        Timestamp::from_second(t).map_err(|e| IdentityError::Cert {
            file,
            why: e.to_string(),
        })
    };
    Ok(CertInfo {
        from: time(parsed.validity().not_before.timestamp())?,
        until: time(parsed.validity().not_after.timestamp())?,
        hash: Hash::of_bytes(cert),
    })
}

fn parse<'a>(
    file: &'static str,
    cert: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(cert).map_err(|e| IdentityError::Cert {
        file,
        why: e.to_string(),
    })?;
    Ok(parsed)
}

/// Checks that a certificate is for this key and this node.
pub fn check_cert(
    file: &'static str,
    cert: &CertificateDer<'_>,
    key_pem: &str,
    node: &str,
) -> Result<CertInfo, IdentityError> {
    let parsed = parse(file, cert)?;
    if !matches_key(&parsed, key_pem)? {
        let why = "the certificate is for another key than the one it was asked for".into();
        return Err(IdentityError::Cert { file, why });
    }
    let wanted = format!("system:node:{node}");
    let names: Vec<&str> = parsed
        .subject()
        .iter_common_name()
        .filter_map(|cn| cn.as_str().ok())
        .collect();
    if names != [wanted.as_str()] {
        let why = format!("the certificate is for {names:?}, wanted is {wanted:?}");
        return Err(IdentityError::Cert { file, why });
    }
    cert_info(file, cert)
}

fn matches_key(cert: &X509Certificate<'_>, key_pem: &str) -> Result<bool, IdentityError> {
    let key = KeyPair::from_pem(key_pem).map_err(IdentityError::Make)?;
    Ok(cert.public_key().raw == key.subject_public_key_info())
}

/// A key and a request for a certificate for that node, both PEM; its signature proves possession.
pub fn request(node: &str) -> Result<(String, String), IdentityError> {
    let key = KeyPair::generate().map_err(IdentityError::Make)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "system:nodes");
    name.push(DnType::CommonName, format!("system:node:{node}"));
    params.distinguished_name = name;
    let csr = params
        .serialize_request(&key)
        .map_err(IdentityError::Make)?;
    Ok((key.serialize_pem(), csr.pem().map_err(IdentityError::Make)?))
}

/// The renewed pair has proven itself: it becomes the pair.
pub fn promote(dir: &Path) -> Result<(), FilesError> {
    files::rename(dir, files::NEXT_KEY, files::KEY)?;
    files::rename(dir, files::NEXT_CERT, files::CERT)
}

/// The renewed pair does not work: it goes.
pub fn discard(dir: &Path) -> Result<(), FilesError> {
    // The certificate first: without it the key is never looked at.
    files::remove(dir, files::NEXT_CERT)?;
    files::remove(dir, files::NEXT_KEY)
}

/// A crash between the two renames of [`promote`] leaves the new key with the old certificate.
fn finish_promotion(dir: &Path) -> Result<(), IdentityError> {
    let has = |name: &str| dir.join(name).exists();
    if !has(files::NEXT_CERT) || has(files::NEXT_KEY) {
        return Ok(());
    }
    let key_pem = files::read_secret(dir, files::KEY)?;
    let next = certs(files::NEXT_CERT, &files::read(dir, files::NEXT_CERT)?)?;
    if matches_key(&parse(files::NEXT_CERT, &next[0])?, &key_pem)? {
        files::rename(dir, files::NEXT_CERT, files::CERT)?;
    } else {
        files::remove(dir, files::NEXT_CERT)?;
    }
    Ok(())
}
