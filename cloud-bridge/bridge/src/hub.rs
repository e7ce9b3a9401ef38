//! The connections of all nodes: one each, the newest wins.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use edgebus_linkproto::Code;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a connection has to end.
pub type Kick = Option<(Code, &'static str)>;

#[derive(Debug)]
struct Slot {
    id: u64,
    /// Hash of the public key that opened it.
    key_hash: String,
    kick: watch::Sender<Kick>,
    gone: CancellationToken,
}

/// What one connection holds of the hub.
#[derive(Debug)]
pub struct Seat {
    pub id: u64,
    pub kicked: watch::Receiver<Kick>,
    /// The connection before this one, if it has not ended: its writes come first.
    pub before: Option<CancellationToken>,
    gone: CancellationToken,
}

/// The connection is over when its seat is.
impl Drop for Seat {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Hub {
    slots: Mutex<(u64, BTreeMap<String, Slot>)>,
}

impl Hub {
    fn slots(&self) -> MutexGuard<'_, (u64, BTreeMap<String, Slot>)> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the node's place; whoever has it is told to go.
    pub fn sit(&self, node: &str, key_hash: &str) -> Seat {
        let mut slots = self.slots();
        slots.0 += 1;
        let id = slots.0;
        let (kick, kicked) = watch::channel(None);
        let gone = CancellationToken::new();
        let slot = Slot {
            id,
            key_hash: key_hash.to_owned(),
            kick,
            gone: gone.clone(),
        };
        let before = slots.1.insert(node.to_owned(), slot).map(|old| {
            old.kick.send_replace(Some((
                Code::SUPERSEDED,
                "a newer connection of this node took over",
            )));
            old.gone
        });
        Seat {
            id,
            kicked,
            before,
            gone,
        }
    }

    pub fn leave(&self, node: &str, seat: &Seat) {
        let mut slots = self.slots();
        if slots.1.get(node).is_some_and(|slot| slot.id == seat.id) {
            slots.1.remove(node);
        }
    }

    /// Ends the connection if its key is none that the node may use now.
    pub fn check(&self, node: &str, knows: impl FnOnce(&str) -> bool) {
        let slots = self.slots();
        let slot = slots.1.get(node).filter(|slot| !knows(&slot.key_hash));
        if let Some(slot) = slot {
            let why = "this key was replaced by a later join, or the node was forgotten";
            slot.kick.send_replace(Some((Code::REVOKED, why)));
        }
    }

    pub fn kick(&self, node: &str, code: Code, why: &'static str) {
        if let Some(slot) = self.slots().1.get(node) {
            slot.kick.send_replace(Some((code, why)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_key_ends_its_connection() {
        let hub = Hub::default();
        let seat = hub.sit("gw", "old");
        hub.check("gw", |key| key == "old");
        assert_eq!(*seat.kicked.borrow(), None);
        hub.check("gw", |key| key == "new");
        assert!(seat.kicked.borrow().is_some());
    }

    #[test]
    fn the_newest_connection_of_a_node_wins() {
        let hub = Hub::default();
        let first = hub.sit("gw", "k1");
        assert!(first.before.is_none());
        let other = hub.sit("other", "k");
        let second = hub.sit("gw", "k1");
        assert_eq!(
            first.kicked.borrow().map(|(code, _)| code),
            Some(Code::SUPERSEDED)
        );
        assert_eq!(*other.kicked.borrow(), None);
        let before = second.before.clone().unwrap();
        assert!(!before.is_cancelled());
        hub.leave("gw", &first);
        drop(first);
        assert!(before.is_cancelled());
        hub.kick("gw", Code::REVOKED, "revoked");
        assert!(
            second.kicked.borrow().is_some(),
            "leaving late does not free the newer seat"
        );
    }
}
