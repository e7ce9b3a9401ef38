//! The bus side of a mapper: hello, the devices assigned to it, and which line serves each.

use crate::line::{Cmd, LineTask};
use crate::outbox::Outbox;
use crate::protocol::{Protocol, lower_keys};
use edgebus_bus::payload::{self, DeviceConfig, DeviceState, DeviceUp, Hello, Mark, Want};
use edgebus_bus::{DeviceId, Name, ROOT, Topic};
use edgebus_client::{Bus, Change, now_rfc3339_ms};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Serves the devices that are assigned to this mapper until stopped.
pub async fn run<P: Protocol>(
    protocol: P,
    bus: Bus,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let me = bus.name().clone();
    let hello = Hello {
        protocol: P::NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: 1,
        schema: protocol.schema(),
        capacity: None,
        features: vec!["write".to_owned()],
    };
    bus.put(&Topic::MapperHello { m: me.clone() }, &hello)
        .await?;
    let outbox = Outbox::new(bus.clone(), me.clone());
    let tasks = TaskTracker::new();
    tasks.spawn(outbox.clone().run(stop.clone()));
    let filters = ["config", "want", "mark"].map(|leaf| format!("{ROOT}/dev/{me}/+/+/{leaf}"));
    let mut mirror = bus.collection(filters).await?.mirror();
    let mut assign = Assign {
        protocol: Arc::new(protocol),
        outbox,
        me,
        tasks: tasks.clone(),
        stop: stop.clone(),
        synced: false,
        known: BTreeMap::new(),
        lines: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            change = mirror.next() => match change {
                Some(change) => assign.take(change?),
                None => break,
            },
        }
    }
    tasks.close();
    drop(assign);
    tasks.wait().await;
    Ok(())
}

/// What is known of one device.
#[derive(Default)]
struct Known {
    config: Option<DeviceConfig>,
    want: Option<Want>,
    mark: Option<Mark>,
    /// The line that serves it.
    line: Option<String>,
}

struct Assign<P: Protocol> {
    protocol: Arc<P>,
    outbox: Outbox,
    me: Name,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The first whole listing has been seen; until then nothing is touched, because a device's
    /// mark may still be on its way.
    synced: bool,
    known: BTreeMap<DeviceId, Known>,
    lines: BTreeMap<String, Serving>,
}

struct Serving {
    mailbox: Arc<Mailbox>,
    devices: usize,
    stop: CancellationToken,
}

enum Leaf {
    Config,
    Want,
    Mark,
}

impl<P: Protocol> Assign<P> {
    fn place(&self, topic: &str) -> Option<(DeviceId, Leaf)> {
        match Topic::parse(topic).ok()? {
            Topic::DevConfig { m, ns, name } if m == self.me => {
                Some((DeviceId { ns, name }, Leaf::Config))
            }
            Topic::DevWant { m, ns, name } if m == self.me => {
                Some((DeviceId { ns, name }, Leaf::Want))
            }
            Topic::DevMark { m, ns, name } if m == self.me => {
                Some((DeviceId { ns, name }, Leaf::Mark))
            }
            _ => None,
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Synced => {
                if !self.synced {
                    self.synced = true;
                    let all: Vec<DeviceId> = self.known.keys().cloned().collect();
                    for id in all {
                        self.assign(&id);
                        self.want(&id, false);
                    }
                }
            }
            Change::Set { topic, payload } => {
                let Some((id, leaf)) = self.place(&topic) else {
                    return;
                };
                let known = self.known.entry(id.clone()).or_default();
                let read = match leaf {
                    Leaf::Config => payload::read(&payload).map(|v| known.config = Some(v)),
                    Leaf::Want => payload::read(&payload).map(|v| known.want = Some(v)),
                    Leaf::Mark => payload::read(&payload).map(|v| known.mark = Some(v)),
                };
                if let Err(e) = read {
                    tracing::error!(topic, error = %e, "a payload is not as it should be; left as it was");
                    return;
                }
                match leaf {
                    Leaf::Config if self.synced => {
                        let new = self.known.get(&id).is_some_and(|k| k.line.is_none());
                        self.assign(&id);
                        // Its desired values may have come first.
                        if new {
                            self.want(&id, true);
                        }
                    }
                    Leaf::Want if self.synced => self.want(&id, true),
                    // Our own word, coming back.
                    _ => {}
                }
            }
            Change::Gone { topic } => {
                let Some((id, leaf)) = self.place(&topic) else {
                    return;
                };
                let Some(known) = self.known.get_mut(&id) else {
                    return;
                };
                match leaf {
                    Leaf::Config => {
                        known.config = None;
                        self.release(&id);
                        self.outbox.forget(&id);
                    }
                    Leaf::Want => {
                        known.want = None;
                        self.want(&id, true);
                    }
                    Leaf::Mark => known.mark = None,
                }
                if let Some(k) = self.known.get(&id)
                    && k.config.is_none()
                    && k.want.is_none()
                    && k.mark.is_none()
                {
                    self.known.remove(&id);
                }
            }
        }
    }

    fn assign(&mut self, id: &DeviceId) {
        let Some(known) = self.known.get(id) else {
            return;
        };
        let Some(config) = known.config.clone() else {
            return;
        };
        let mark = known.mark.clone();
        let dev = match self.protocol.device(id, &lower_keys(&config.protocol)) {
            Ok(dev) => dev,
            Err(why) => {
                self.release(id);
                tracing::warn!(device = %id, why, "configuration refused");
                let at = now_rfc3339_ms();
                return self.outbox.state(
                    id,
                    DeviceState {
                        state: DeviceUp::Unhealthy,
                        why: Some(why),
                        at,
                    },
                );
            }
        };
        let key = self.protocol.line(&dev);
        if self
            .known
            .get(id)
            .is_some_and(|k| k.line.as_ref().is_some_and(|l| *l != key))
        {
            self.release(id);
        }
        let serving = self.lines.entry(key.clone()).or_insert_with(|| {
            let stop = self.stop.child_token();
            let mailbox = Arc::new(Mailbox::default());
            let task = LineTask::new(self.protocol.clone(), self.outbox.clone());
            self.tasks.spawn(task.run(mailbox.clone(), stop.clone()));
            Serving {
                mailbox,
                devices: 0,
                stop,
            }
        });
        if let Some(known) = self.known.get_mut(id)
            && known.line.is_none()
        {
            known.line = Some(key);
            serving.devices += 1;
        }
        serving
            .mailbox
            .push(Cmd::Assign(id.clone(), Box::new(config), mark));
    }

    fn want(&self, id: &DeviceId, live: bool) {
        let Some(known) = self.known.get(id) else {
            return;
        };
        if let Some(serving) = known.line.as_ref().and_then(|l| self.lines.get(l)) {
            serving.mailbox.push(Cmd::Want(
                id.clone(),
                known.want.clone().unwrap_or_default(),
                live,
            ));
        }
    }

    fn release(&mut self, id: &DeviceId) {
        let Some(key) = self.known.get_mut(id).and_then(|k| k.line.take()) else {
            return;
        };
        let Some(serving) = self.lines.get_mut(&key) else {
            return;
        };
        serving.mailbox.push(Cmd::Remove(id.clone()));
        serving.devices -= 1;
        if serving.devices == 0 {
            serving.stop.cancel();
            self.lines.remove(&key);
        }
    }
}

/// Commands on their way to a line that may be busy with a slow device. Holds at most one of each
/// kind per device: a newer one takes the place of an older.
#[derive(Default)]
pub struct Mailbox {
    queue: Mutex<VecDeque<Cmd>>,
    news: Notify,
}

impl Mailbox {
    fn push(&self, cmd: Cmd) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match &cmd {
            Cmd::Want(id, ..) => queue.retain(|c| !matches!(c, Cmd::Want(i, ..) if i == id)),
            Cmd::Assign(id, ..) | Cmd::Remove(id) => {
                queue.retain(|c| !matches!(c, Cmd::Assign(i, ..) | Cmd::Remove(i) if i == id));
            }
        }
        queue.push_back(cmd);
        drop(queue);
        self.news.notify_one();
    }

    /// The next command, if one waits.
    pub fn try_next(&self) -> Option<Cmd> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// The next command. Cancel-safe.
    pub async fn next(&self) -> Cmd {
        loop {
            if let Some(cmd) = self.try_next() {
                return cmd;
            }
            self.news.notified().await;
        }
    }
}
