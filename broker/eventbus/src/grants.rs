//! Who may connect: the tokens that the warden has announced, kept as hashes, and the rules of
//! each identity, compiled once.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edgebus_bus::unit::Grant;
use edgebus_bus::{Identity, Role};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::acl::Rules;

/// The broker's own name on the bus: no token can have it.
pub const BROKER: &str = "broker";

/// Tokens by name.
#[derive(Default)]
pub struct Grants {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tokens: HashMap<String, (Identity, [u8; 32])>,
    rules: HashMap<Identity, Arc<Rules>>,
}

impl Grants {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds or replaces the token of an identity; false if the name is the broker's.
    pub fn allow(&self, identity: Identity, token: &str) -> bool {
        if identity.name == BROKER || identity.name.contains('/') {
            return false;
        }
        let hash = Sha256::digest(token.as_bytes()).into();
        let name = identity.name.clone();
        self.inner().tokens.insert(name, (identity, hash));
        true
    }

    /// Removes a name.
    pub fn forget(&self, name: &str) {
        let mut inner = self.inner();
        inner.tokens.remove(name);
        inner.rules.retain(|identity, _| identity.name != name);
    }

    /// The rules of whoever has this name and token.
    pub fn check(&self, name: &str, token: &[u8]) -> Option<Arc<Rules>> {
        // Comparing hashes leaks nothing about the token through time.
        let hash: [u8; 32] = Sha256::digest(token).into();
        let identity = {
            let inner = self.inner();
            let (identity, expected) = inner.tokens.get(name)?;
            (hash == *expected).then(|| identity.clone())?
        };
        Some(self.rules(identity))
    }

    /// The rules of somebody known by other means.
    pub fn known(&self, role: Role, name: &str) -> Arc<Rules> {
        self.rules(Identity::new(role, name))
    }

    fn rules(&self, identity: Identity) -> Arc<Rules> {
        let mut inner = self.inner();
        let rules = inner.rules.entry(identity.clone());
        rules
            .or_insert_with(|| Arc::new(Rules::new(identity)))
            .clone()
    }
}

/// Reads newline-delimited [`Grant`]s on a thread of its own until the input ends; then the
/// receiver ends too. A line that is no grant is reported and skipped.
pub fn read_lines(input: impl BufRead + Send + 'static) -> std::io::Result<mpsc::Receiver<Grant>> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::Builder::new()
        .name("grants".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            for line in input.lines() {
                let Ok(line) = line else { break };
                if line.trim().is_empty() {
                    continue;
                }
                match serde_json::from_str::<Grant>(&line) {
                    Ok(grant) => {
                        if sender.blocking_send(grant).is_err() {
                            break;
                        }
                    }
                    // The line may hold a token: only the error is said.
                    Err(error) => tracing::error!(%error, "a line from the parent is no grant"),
                }
            }
        })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_name_only() {
        let grants = Grants::default();
        assert!(grants.allow(Identity::new(Role::Mapper, "modbus"), "secret"));
        assert!(grants.check("modbus", b"secret").is_some());
        assert!(grants.check("modbus", b"other").is_none());
        assert!(grants.check("link", b"secret").is_none());
        grants.allow(Identity::new(Role::Mapper, "modbus"), "new");
        assert!(grants.check("modbus", b"secret").is_none());
        grants.forget("modbus");
        assert!(grants.check("modbus", b"new").is_none());
    }

    #[test]
    fn nobody_is_the_broker() {
        let grants = Grants::default();
        assert!(!grants.allow(Identity::new(Role::Link, BROKER), "t"));
    }
}
