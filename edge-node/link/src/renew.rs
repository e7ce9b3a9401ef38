//! Renewal of the certificate over the link: a new key, a request, and a pair that takes over only after a
//! connection with it has succeeded.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::files;
use crate::identity::{self, CertInfo, IdentityError};

/// A renewed pair that failed so often to connect is thrown away.
const TRIES: u32 = 3;
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub struct Renewal {
    /// The key of the request that is under way.
    key_pem: Option<String>,
    not_before: Option<Timestamp>,
    failed_dials: u32,
}

impl Renewal {
    /// The request to send now, if it is time.
    pub fn request(
        &mut self,
        cert: &CertInfo,
        node: &str,
        now: Timestamp,
    ) -> Result<Option<String>, IdentityError> {
        let early = now < cert.renew_at() || self.not_before.is_some_and(|at| now < at);
        if early || self.key_pem.is_some() {
            return Ok(None);
        }
        let (key_pem, csr_pem) = identity::request(node)?;
        self.key_pem = Some(key_pem);
        Ok(Some(csr_pem))
    }

    /// The certificate came: checked and kept beside the old one. The next connection uses it.
    pub fn accept(
        &mut self,
        dir: &Path,
        cert_pem: &str,
        node: &str,
    ) -> Result<CertInfo, IdentityError> {
        let key_pem = self.key_pem.take().unwrap_or_default();
        let chain = identity::certs(files::NEXT_CERT, cert_pem)?;
        let info = identity::check_cert(files::NEXT_CERT, &chain[0], &key_pem, node)?;
        files::write(dir, files::NEXT_KEY, &key_pem)?;
        files::write(dir, files::NEXT_CERT, cert_pem)?;
        self.failed_dials = 0;
        Ok(info)
    }

    /// It was refused, or what came was wrong: later.
    pub fn later(&mut self, cert: &CertInfo, now: Timestamp) {
        self.key_pem = None;
        let life = cert.until.as_second().saturating_sub(cert.from.as_second());
        let pause = Duration::from_secs(u64::try_from(life / 100).unwrap_or(0));
        self.not_before = now.checked_add(pause.clamp(RETRY_MIN, RETRY_MAX)).ok();
    }

    /// The connection on which it was asked is gone.
    pub fn disconnected(&mut self) {
        self.key_pem = None;
    }

    /// A connection with the renewed pair failed. True: it failed too often and is to be thrown away.
    pub fn dial_failed(&mut self) -> bool {
        self.failed_dials += 1;
        if self.failed_dials >= TRIES {
            self.failed_dials = 0;
            return true;
        }
        false
    }

    /// A connection with it succeeded.
    pub fn proven(&mut self) {
        self.failed_dials = 0;
        self.not_before = None;
    }
}
