//! Who is connected: one connection per session key, the newest wins. Also what a connection
//! leaves behind for the next one of its session: packet ids in flight, and a delayed will.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::codec::ReasonCode;
use crate::store::name_of;

/// How long an old connection may take to leave when a new one takes its session.
const HAND_OVER: Duration = Duration::from_secs(15);

/// Packet ids that were in flight, by their place in the session's queue.
pub type InFlight = BTreeMap<u64, u16>;

struct Live {
    no: u64,
    kick: mpsc::Sender<ReasonCode>,
    gone: CancellationToken,
}

/// All connections and what they left.
#[derive(Default)]
pub struct Registry {
    next: AtomicU64,
    live: Mutex<HashMap<Arc<str>, Live>>,
    left: Mutex<HashMap<Arc<str>, Left>>,
}

#[derive(Default)]
struct Left {
    in_flight: InFlight,
    /// Cancels the delayed will.
    will: Option<CancellationToken>,
}

/// A connection's place. Dropping it gives it up, even if the connection's task panics.
pub struct Seat {
    registry: Arc<Registry>,
    no: u64,
    key: Arc<str>,
    pub kick: mpsc::Receiver<ReasonCode>,
    gone: CancellationToken,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut live = lock(&self.registry.live);
        if live.get(&self.key).is_some_and(|l| l.no == self.no) {
            live.remove(&self.key);
        }
        self.gone.cancel();
    }
}

/// The old connection of this session does not end.
#[derive(Debug, thiserror::Error)]
#[error("the old connection of {0} does not end")]
pub struct Stuck(Arc<str>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Takes the place of `key`, ending the connection that holds it.
    pub async fn enter(self: &Arc<Self>, key: &Arc<str>) -> Result<Seat, Stuck> {
        let taken = async {
            loop {
                let (kick, gone) = match self.try_enter(key) {
                    Ok(seat) => return seat,
                    Err(holder) => holder,
                };
                // A full queue means that it has been told already.
                kick.try_send(ReasonCode::SessionTakenOver).ok();
                gone.cancelled().await;
            }
        };
        let seat = tokio::time::timeout(HAND_OVER, taken).await;
        seat.map_err(|_| Stuck(key.clone()))
    }

    fn try_enter(
        self: &Arc<Self>,
        key: &Arc<str>,
    ) -> Result<Seat, (mpsc::Sender<ReasonCode>, CancellationToken)> {
        let mut live = lock(&self.live);
        if let Some(holder) = live.get(key) {
            return Err((holder.kick.clone(), holder.gone.clone()));
        }
        let no = self.next.fetch_add(1, Ordering::Relaxed);
        let (kick, kicked) = mpsc::channel(1);
        let gone = CancellationToken::new();
        let holder = Live {
            no,
            kick,
            gone: gone.clone(),
        };
        live.insert(key.clone(), holder);
        Ok(Seat {
            registry: self.clone(),
            no,
            key: key.clone(),
            kick: kicked,
            gone,
        })
    }

    /// Ends all connections of a name.
    pub fn kick(&self, name: &str, reason: ReasonCode) {
        for (key, holder) in lock(&self.live).iter() {
            if name_of(key) == name {
                holder.kick.try_send(reason).ok();
            }
        }
    }

    /// Returns when no connection of a name is left.
    pub async fn gone(&self, name: &str) {
        let of_name =
            |(key, holder): (&Arc<str>, &Live)| (name_of(key) == name).then(|| holder.gone.clone());
        let left: Vec<_> = lock(&self.live).iter().filter_map(of_name).collect();
        for gone in left {
            gone.cancelled().await;
        }
    }

    /// Keeps what the session's next connection continues with.
    pub fn put_in_flight(&self, key: &Arc<str>, in_flight: InFlight) {
        if !in_flight.is_empty() {
            lock(&self.left).entry(key.clone()).or_default().in_flight = in_flight;
        }
    }

    /// Keeps the means to cancel a delayed will.
    pub fn put_will(&self, key: &Arc<str>, will: CancellationToken) {
        lock(&self.left).entry(key.clone()).or_default().will = Some(will);
    }

    /// Takes what the last connection of this session left, and cancels its delayed will.
    pub fn take_left(&self, key: &Arc<str>) -> InFlight {
        let left = lock(&self.left).remove(key).unwrap_or_default();
        if let Some(will) = left.will {
            will.cancel();
        }
        left.in_flight
    }

    /// The will has been sent.
    pub fn will_sent(&self, key: &Arc<str>) {
        let mut left = lock(&self.left);
        if let Some(entry) = left.get_mut(key) {
            entry.will = None;
            if entry.in_flight.is_empty() {
                left.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_connection_of_a_session_wins() {
        let registry = Arc::new(Registry::default());
        let key: Arc<str> = "n/c".into();
        let mut old = registry.enter(&key).await.unwrap();
        let newer = {
            let (registry, key) = (registry.clone(), key.clone());
            tokio::spawn(async move { registry.enter(&key).await.is_ok() })
        };
        assert_eq!(old.kick.recv().await, Some(ReasonCode::SessionTakenOver));
        drop(old);
        assert!(newer.await.unwrap());
    }
}
