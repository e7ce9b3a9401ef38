//! What waits to be said on the bus. Lines never wait for the broker: what they say is merged here
//! per device (the newest reading of a property wins, outcomes of writes are kept), so that a broker
//! that is away for long costs a bounded memory and nothing that still holds is lost.

use edgebus_bus::payload::{DeviceState, Gen, Mark, Props, Reading, Report};
use edgebus_bus::{DeviceId, Name, Topic};
use edgebus_client::{Bus, now_rfc3339_ms};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Devices whose words are on their way at a time.
const AT_ONCE: usize = 64;
/// Pause after the broker refused something that it may take later (a full inbox).
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Pending {
    readings: Props<Reading>,
    gen_seen: Option<Gen>,
    state: Option<DeviceState>,
    mark: Option<Mark>,
    seq: u64,
    busy: bool,
    gone: bool,
}

impl Pending {
    fn any(&self) -> bool {
        !self.readings.is_empty() || self.state.is_some() || self.mark.is_some() || self.gone
    }

    /// Newer readings over older ones; the outcome of a write is not lost to a later poll.
    fn merge(&mut self, newer: Props<Reading>) {
        for (name, mut reading) in newer {
            if let Some(old) = self.readings.remove(&name)
                && reading.outcome.is_none()
            {
                (reading.outcome, reading.gen_seen) = (old.outcome, old.gen_seen);
                reading.why = reading.why.or(old.why);
            }
            self.readings.insert(name, reading);
        }
    }
}

/// The outbox of one mapper.
#[derive(Clone)]
pub struct Outbox {
    bus: Bus,
    mapper: Name,
    pending: Arc<Mutex<BTreeMap<DeviceId, Pending>>>,
    news: Arc<Notify>,
}

impl Outbox {
    pub fn new(bus: Bus, mapper: Name) -> Self {
        Self {
            bus,
            mapper,
            pending: Arc::default(),
            news: Arc::default(),
        }
    }

    fn with(&self, id: &DeviceId, change: impl FnOnce(&mut Pending)) {
        change(self.lock().entry(id.clone()).or_default());
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Pending>> {
        // A panic while it was held can have lost one change at most; the rest is still true.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn report(&self, id: &DeviceId, readings: Props<Reading>, gen_seen: Option<Gen>) {
        self.with(id, |p| {
            p.merge(readings);
            p.gen_seen = gen_seen;
        });
    }

    pub fn state(&self, id: &DeviceId, state: DeviceState) {
        self.with(id, |p| p.state = Some(state));
    }

    /// To be stored once the report before it is acknowledged.
    pub fn mark_after_report(&self, id: &DeviceId, mark: Mark) {
        self.with(id, |p| p.mark = Some(mark));
    }

    /// Stored when this returns: a write that cannot be read back may begin.
    pub async fn mark_now(&self, id: &DeviceId, mark: Mark) {
        let topic = Topic::DevMark {
            m: self.mapper.clone(),
            ns: id.ns.clone(),
            name: id.name.clone(),
        };
        while let Err(e) = self.bus.put(&topic, &mark).await {
            tracing::warn!(device = %id, error = %e, "the mark of a write could not be stored; waiting with the write");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Nothing more is said of this device, and what was retained is cleared.
    pub fn forget(&self, id: &DeviceId) {
        self.with(id, |p| {
            *p = Pending {
                gone: true,
                busy: p.busy,
                ..Pending::default()
            }
        });
    }

    /// Sends until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut sending = JoinSet::new();
        loop {
            while sending.len() < AT_ONCE {
                let Some((id, taken)) = self.take() else {
                    break;
                };
                let outbox = self.clone();
                sending.spawn(async move { outbox.send(id, taken).await });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = sending.join_next(), if !sending.is_empty() => {}
                () = self.news.notified(), if sending.len() < AT_ONCE => {}
            }
        }
    }

    fn take(&self) -> Option<(DeviceId, Pending)> {
        let mut all = self.lock();
        let (id, p) = all.iter_mut().find(|(_, p)| p.any() && !p.busy)?;
        p.busy = true;
        if !p.readings.is_empty() {
            p.seq += 1;
        }
        let taken = Pending {
            readings: std::mem::take(&mut p.readings),
            gen_seen: p.gen_seen.clone(),
            state: p.state.take(),
            mark: p.mark.take(),
            seq: p.seq,
            busy: true,
            gone: std::mem::take(&mut p.gone),
        };
        Some((id.clone(), taken))
    }

    async fn send(&self, id: DeviceId, mut taken: Pending) {
        let result = self.say(&id, &taken).await;
        if let Err(e) = &result {
            tracing::warn!(device = %id, error = %e, "the bus did not take a report; it stays for the next try");
            tokio::time::sleep(PAUSE).await;
        }
        let mut all = self.lock();
        let p = all.entry(id.clone()).or_default();
        p.busy = false;
        if result.is_err() && !p.gone {
            let newer = std::mem::take(&mut p.readings);
            std::mem::swap(&mut p.readings, &mut taken.readings);
            p.merge(newer);
            p.state = p.state.take().or(taken.state);
            p.mark = p.mark.take().or(taken.mark);
            p.gone |= taken.gone;
        } else if taken.gone && !p.any() {
            all.remove(&id);
        }
        drop(all);
        self.news.notify_one();
    }

    async fn say(&self, id: &DeviceId, taken: &Pending) -> edgebus_client::Result<()> {
        let (m, ns, name) = (self.mapper.clone(), id.ns.clone(), id.name.clone());
        if taken.gone {
            self.bus
                .clear(&Topic::DevState {
                    m: m.clone(),
                    ns: ns.clone(),
                    name: name.clone(),
                })
                .await?;
            self.bus
                .clear(&Topic::DevMark {
                    m: m.clone(),
                    ns: ns.clone(),
                    name: name.clone(),
                })
                .await?;
        }
        if !taken.readings.is_empty() {
            let report = Report {
                seq: taken.seq,
                boot: self.bus.boot().to_owned(),
                gen_seen: taken.gen_seen.clone(),
                at: now_rfc3339_ms(),
                props: taken.readings.clone(),
            };
            let topic = Topic::DevReport {
                m: m.clone(),
                ns: ns.clone(),
                name: name.clone(),
            };
            self.bus.send(&topic, &report).await?;
        }
        if let Some(state) = &taken.state {
            self.bus
                .put(
                    &Topic::DevState {
                        m: m.clone(),
                        ns: ns.clone(),
                        name: name.clone(),
                    },
                    state,
                )
                .await?;
        }
        if let Some(mark) = &taken.mark {
            self.bus.put(&Topic::DevMark { m, ns, name }, mark).await?;
        }
        Ok(())
    }
}
