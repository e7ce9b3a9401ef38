//! Tokens of units: made here, kept in memory only.

use edgebus_bus::unit::Grant;
use edgebus_bus::{Identity, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// 256 random bits in hexadecimal.
fn mint() -> anyhow::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| anyhow::anyhow!("no randomness from the kernel: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Chance between 0 and 1, for spreading restarts.
pub(crate) fn chance() -> f64 {
    let mut byte = [0u8; 1];
    // Without randomness the middle does as well.
    match getrandom::fill(&mut byte) {
        Ok(()) => f64::from(byte[0]) / 255.0,
        Err(_) => 0.5,
    }
}

#[derive(Default)]
struct Held {
    allowed: BTreeMap<String, (Role, String)>,
    /// Names whose retained messages a broker has yet to clear, for all we know.
    forgotten: BTreeSet<String>,
    live: Option<mpsc::Sender<Grant>>,
}

/// All tokens, and the broker that is told of changes.
#[derive(Default)]
pub(crate) struct Tokens {
    held: Mutex<Held>,
}

impl Tokens {
    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token of this name: the one it has, or a new one.
    pub fn allow(&self, role: Role, name: &str) -> anyhow::Result<String> {
        let mut held = self.lock();
        if let Some((_, token)) = held.allowed.get(name) {
            return Ok(token.clone());
        }
        let token = mint()?;
        held.forgotten.remove(name);
        held.allowed.insert(name.to_owned(), (role, token.clone()));
        held.tell(Grant::Allow {
            identity: Identity::new(role, name),
            token: token.clone(),
        });
        Ok(token)
    }

    /// This name is gone for good.
    pub fn forget(&self, name: &str) {
        let mut held = self.lock();
        held.allowed.remove(name);
        held.forgotten.insert(name.to_owned());
        held.tell(Grant::Forget {
            name: name.to_owned(),
        });
    }

    /// A broker starts: what it must know before it listens, and the changes from then on.
    pub fn attach(&self) -> (Vec<Grant>, mpsc::Receiver<Grant>) {
        let mut held = self.lock();
        let mut all: Vec<_> = held
            .forgotten
            .iter()
            .map(|name| Grant::Forget { name: name.clone() })
            .collect();
        all.extend(
            held.allowed
                .iter()
                .map(|(name, (role, token))| Grant::Allow {
                    identity: Identity::new(*role, name.clone()),
                    token: token.clone(),
                }),
        );
        all.push(Grant::Ready);
        let (tell, changes) = mpsc::channel(64);
        held.live = Some(tell);
        (all, changes)
    }
}

impl Held {
    fn tell(&mut self, grant: Grant) {
        if let Some(live) = &self.live
            && live.try_send(grant).is_err()
        {
            // Gone, or so far behind that a new one is better off: either way the next broker
            // hears everything. Dropping the sender ends this one.
            self.live = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_outlives_its_broker_and_is_long() {
        let tokens = Tokens::default();
        let token = tokens.allow(Role::Mapper, "modbus").unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(tokens.allow(Role::Mapper, "modbus").unwrap(), token);
        for _ in 0..2 {
            let (all, _) = tokens.attach();
            assert_eq!(all.len(), 2);
            assert!(matches!(&all[0], Grant::Allow { token: t, .. } if *t == token));
            assert_eq!(all[1], Grant::Ready);
        }
    }

    #[test]
    fn changes_reach_the_living_broker_and_the_next_one() {
        let tokens = Tokens::default();
        let (_, mut changes) = tokens.attach();
        tokens.allow(Role::Link, "link").unwrap();
        assert!(matches!(changes.try_recv().unwrap(), Grant::Allow { .. }));
        tokens.forget("link");
        assert!(matches!(changes.try_recv().unwrap(), Grant::Forget { .. }));
        let (all, _) = tokens.attach();
        assert!(matches!(&all[0], Grant::Forget { name } if name == "link"));
    }
}
