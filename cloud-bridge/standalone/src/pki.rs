//! The server's own certificate authority, its serving certificate, the administrator's
//! client certificate, and the kubeconfig that holds them. Private files are 0600.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const YEARS_CA: i32 = 20;
const YEARS_LEAF: i32 = 10;

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct FileError {
    pub what: &'static str,
    pub path: PathBuf,
    pub source: std::io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot make a certificate for {what}")]
    Make {
        what: &'static str,
        source: rcgen::Error,
    },
    #[error("{path} is not a usable key or certificate; remove the folder to start anew")]
    Unreadable { path: PathBuf, source: rcgen::Error },
    #[error("{path} is not a usable PEM file; remove the folder to start anew")]
    Pem {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let failed = |what| {
        let path = path.to_owned();
        move |source| FileError { what, path, source }
    };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    if let Err(error) = std::fs::remove_file(&new)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed("replace")(error));
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed("create"))?;
    file.write_all(content).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    std::fs::rename(&new, path).map_err(failed("write"))
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// What the server presents and what it hands to its administrator.
pub struct Pki {
    pub ca: String,
    pub admin: Pair,
    pub serving: Vec<CertificateDer<'static>>,
    pub serving_key: PrivateKeyDer<'static>,
    pub client_roots: Vec<CertificateDer<'static>>,
}

fn this_year() -> i32 {
    let seconds = jiff::Timestamp::now().as_second();
    // Precise to the day: good enough for a validity counted in years.
    i32::try_from(1970 + seconds / 31_556_952).unwrap_or(2026)
}

fn params(
    common_name: &str,
    organization: Option<&str>,
    sans: Vec<String>,
    years: i32,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(sans)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    // A gateway's clock may be behind: valid since before it was made.
    params.not_before = rcgen::date_time_ymd(this_year() - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(this_year() + years, 12, 31);
    Ok(params)
}

fn make_ca() -> Result<Pair, rcgen::Error> {
    let mut ca = params("edgebus-standalone-ca", None, Vec::new(), YEARS_CA)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate()?;
    Ok(Pair {
        cert: ca.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

fn make_leaf(
    issuer: &Issuer<'_, KeyPair>,
    mut leaf: CertificateParams,
    usage: ExtendedKeyUsagePurpose,
) -> Result<Pair, rcgen::Error> {
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![usage];
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok(Pair {
        cert: leaf.signed_by(&key, issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

/// Loads a pair from the folder, or makes and stores it.
fn pair(
    dir: &Path,
    name: &'static str,
    make: impl FnOnce() -> Result<Pair, rcgen::Error>,
) -> Result<Pair, PkiError> {
    let cert_path = dir.join(format!("{name}.crt"));
    let key_path = dir.join(format!("{name}.key"));
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError {
            what: "read",
            path: path.to_owned(),
            source,
        }),
    };
    // The certificate is written last: a pair without it was never finished.
    if let (Some(cert), Some(key)) = (read(&cert_path)?, read(&key_path)?) {
        return Ok(Pair { cert, key });
    }
    let made = make().map_err(|source| PkiError::Make { what: name, source })?;
    write_private(&key_path, made.key.as_bytes())?;
    write_private(&cert_path, made.cert.as_bytes())?;
    Ok(made)
}

fn certificates(path: &Path, pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| PkiError::Pem {
            path: path.to_owned(),
            source,
        })
}

/// Loads or makes everything in `dir`. The serving certificate is made anew at each start,
/// for the names and addresses of today.
pub fn open(dir: &Path, sans: &[String]) -> Result<Pki, PkiError> {
    std::fs::create_dir_all(dir).map_err(|source| FileError {
        what: "create",
        path: dir.to_owned(),
        source,
    })?;
    let ca = pair(dir, "ca", make_ca)?;
    let ca_path = dir.join("ca.crt");
    let unreadable = |path: PathBuf| move |source| PkiError::Unreadable { path, source };
    let ca_key = KeyPair::from_pem(&ca.key).map_err(unreadable(dir.join("ca.key")))?;
    let issuer = Issuer::from_ca_cert_pem(&ca.cert, ca_key).map_err(unreadable(ca_path.clone()))?;
    let admin = pair(dir, "admin", || {
        let leaf = params(
            "kubernetes-admin",
            Some(crate::auth::MASTERS),
            Vec::new(),
            YEARS_LEAF,
        )?;
        make_leaf(&issuer, leaf, ExtendedKeyUsagePurpose::ClientAuth)
    })?;
    let mut names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
    ]
    .map(ToOwned::to_owned)
    .into();
    names.extend(
        sans.iter()
            .filter(|s| !names.contains(s))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let serving = params("kube-apiserver", None, names, YEARS_LEAF)
        .and_then(|leaf| make_leaf(&issuer, leaf, ExtendedKeyUsagePurpose::ServerAuth))
        .map_err(|source| PkiError::Make {
            what: "serving",
            source,
        })?;
    let serving_key =
        PrivateKeyDer::from_pem_slice(serving.key.as_bytes()).map_err(|source| PkiError::Pem {
            path: dir.join("serving.key"),
            source,
        })?;
    Ok(Pki {
        serving: certificates(&dir.join("serving.crt"), &serving.cert)?,
        serving_key,
        client_roots: certificates(&ca_path, &ca.cert)?,
        ca: ca.cert,
        admin,
    })
}

/// A kubeconfig for the administrator, with everything inside.
pub fn kubeconfig(server: &str, ca: &str, admin: &Pair) -> String {
    use base64::Engine;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: edgebus\nclusters:\n- name: edgebus\n  \
         cluster:\n    server: {server}\n    certificate-authority-data: {}\nusers:\n\
         - name: edgebus-admin\n  user:\n    client-certificate-data: {}\n    \
         client-key-data: {}\ncontexts:\n- name: edgebus\n  context:\n    cluster: edgebus\n    \
         user: edgebus-admin\n",
        encode(ca),
        encode(&admin.cert),
        encode(&admin.key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_same_authority_is_found_again_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[]).unwrap();
        let second = open(dir.path(), &["gateway.local".into()]).unwrap();
        assert_eq!(first.ca, second.ca);
        assert_eq!(first.admin.cert, second.admin.cert);
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        let der = certificates(dir.path(), &first.admin.cert).unwrap();
        let user = crate::auth::from_certificate(&der[0]).unwrap();
        assert_eq!(user.name, "kubernetes-admin");
        assert!(user.is_master());
    }
}
