//! One line: the devices that share a serial port, a socket or a session, asked strictly one at a
//! time. It opens the line when something is due, does what each device's state machine says, and
//! lets a silent device wait without slowing its neighbours.

use crate::assign::Mailbox;
use crate::device::{Device, Due, Out, Step};
use crate::outbox::Outbox;
use crate::protocol::{LineError, Protocol};
use edgebus_bus::DeviceId;
use edgebus_bus::payload::{DeviceConfig, DeviceState, DeviceUp, Mark, Want};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What a line is told.
pub enum Cmd {
    /// Serve this device, or serve it so from now on.
    Assign(DeviceId, Box<DeviceConfig>, Option<Mark>),
    /// New desired values.
    Want(DeviceId, Want, bool),
    /// Serve it no more.
    Remove(DeviceId),
}

pub struct LineTask<P: Protocol> {
    protocol: Arc<P>,
    outbox: Outbox,
    start: Instant,
    devices: BTreeMap<DeviceId, Device<P>>,
    /// The device asked last: the next round starts behind it.
    last: Option<DeviceId>,
    open: Option<P::Line>,
    settings: Option<String>,
}

impl<P: Protocol> LineTask<P> {
    pub fn new(protocol: Arc<P>, outbox: Outbox) -> Self {
        Self {
            protocol,
            outbox,
            start: Instant::now(),
            devices: BTreeMap::new(),
            last: None,
            open: None,
            settings: None,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Serves until stopped.
    pub async fn run(mut self, mailbox: Arc<Mailbox>, stop: CancellationToken) {
        loop {
            // Commands first: a new desired value must not wait for a poll.
            while let Some(cmd) = mailbox.try_next() {
                self.take(cmd);
            }
            let next = self.next();
            let wake = match next {
                Next::Now(id, due) => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.act(id, due) => continue,
                    }
                }
                Next::At(ms) => Some(self.start + Duration::from_millis(ms)),
                Next::Idle => None,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                cmd = mailbox.next() => self.take(cmd),
                () = async { match wake { Some(t) => sleep_until(t).await, None => std::future::pending().await } } => {}
            }
        }
    }

    fn take(&mut self, cmd: Cmd) {
        let at = edgebus_client::now_rfc3339_ms();
        let now = self.now();
        match cmd {
            Cmd::Assign(id, config, mark) => self.assign(id, &config, mark, now, &at),
            Cmd::Want(id, want, live) => {
                if let Some(device) = self.devices.get_mut(&id) {
                    let out = device.want(&*self.protocol, &want, live, &at);
                    self.say(&id, out);
                }
            }
            Cmd::Remove(id) => {
                self.devices.remove(&id);
                if self.devices.is_empty() {
                    (self.open, self.settings) = (None, None);
                }
            }
        }
    }

    fn assign(
        &mut self,
        id: DeviceId,
        config: &DeviceConfig,
        mark: Option<Mark>,
        now: u64,
        at: &str,
    ) {
        let old = self.devices.remove(&id);
        let refused = |why: String| DeviceState {
            state: DeviceUp::Unhealthy,
            why: Some(why),
            at: at.to_owned(),
        };
        let mut device = match Device::new(&*self.protocol, &id, config, now) {
            Ok(device) => device,
            Err(why) => {
                tracing::warn!(device = %id, why, "configuration refused");
                return self.outbox.state(&id, refused(why));
            }
        };
        let settings = self.protocol.settings(&device.dev);
        if self.devices.is_empty() {
            if self.settings.as_ref().is_some_and(|s| *s != settings) {
                self.open = None;
            }
            self.settings = Some(settings);
        } else if self.settings.as_ref().is_some_and(|s| *s != settings) {
            let why = format!(
                "another device on the same line uses {:?}, this one {settings:?}: a line has one setting",
                self.settings.as_deref().unwrap_or_default()
            );
            return self.outbox.state(&id, refused(why));
        }
        if let Some(mark) = &mark {
            device.remember(mark);
        }
        if let Some(old) = old {
            device.inherit(old, &*self.protocol);
        }
        let out = device.complaints(now, at);
        self.devices.insert(id.clone(), device);
        self.say(&id, out);
    }

    /// Round robin behind the device asked last, so that a busy one cannot starve the others.
    fn next(&self) -> Next {
        let now = self.now();
        let mut soonest: Option<u64> = None;
        let behind = self
            .devices
            .iter()
            .filter(|(id, _)| self.last.as_ref().is_none_or(|l| *id > l));
        let before = self
            .devices
            .iter()
            .filter(|(id, _)| self.last.as_ref().is_some_and(|l| *id <= l));
        let mut read = None;
        for (id, device) in behind.chain(before) {
            match device.due(now) {
                due @ Due::Write(..) => return Next::Now(id.clone(), due),
                due @ Due::Read(_) => read = read.or(Some(Next::Now(id.clone(), due))),
                Due::Wait(Some(t)) => soonest = Some(soonest.map_or(t, |s| s.min(t))),
                Due::Wait(None) => {}
            }
        }
        read.unwrap_or(soonest.map_or(Next::Idle, Next::At))
    }

    async fn act(&mut self, id: DeviceId, due: Due) {
        self.last = Some(id.clone());
        let Some(device) = self.devices.get_mut(&id) else {
            return;
        };
        if self.open.is_none() {
            match self.protocol.open(&device.dev).await {
                Ok(line) => self.open = Some(line),
                Err(e) => return self.lost(&e),
            }
        }
        let Some(line) = self.open.as_mut() else {
            return;
        };
        let at = edgebus_client::now_rfc3339_ms;
        let clock = self.start;
        let now = || u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let result = match due {
            Due::Read(props) => {
                let points = device.points(&props);
                match self.protocol.read(line, &device.dev, &points).await {
                    Ok(values) => {
                        Ok(device.answered(&*self.protocol, now(), &at(), &props, values))
                    }
                    Err(e) => Err(e),
                }
            }
            Due::Write(i, Step::Mark) => {
                device.begin(i);
                let mark = device.mark(&*self.protocol);
                self.outbox.mark_now(&id, mark).await;
                Ok(device.stepped(
                    &*self.protocol,
                    now(),
                    &at(),
                    i,
                    Step::Mark,
                    Ok(Value::Null),
                ))
            }
            Due::Write(i, Step::Write) => {
                device.begin(i);
                let value = device.wanted(i).cloned().unwrap_or_default();
                let points = device.points(&[i]);
                match points.first() {
                    Some(point) => {
                        match self.protocol.write(line, &device.dev, point, &value).await {
                            Ok(r) => Ok(device.stepped(
                                &*self.protocol,
                                now(),
                                &at(),
                                i,
                                Step::Write,
                                r.map(|()| Value::Null),
                            )),
                            Err(e) => Err(e),
                        }
                    }
                    None => Ok(Out::default()),
                }
            }
            Due::Write(i, step) => {
                let points = device.points(&[i]);
                match self.protocol.read(line, &device.dev, &points).await {
                    Ok(mut values) => match values.pop() {
                        Some(value) => {
                            Ok(device.stepped(&*self.protocol, now(), &at(), i, step, value))
                        }
                        None => Ok(Out::default()),
                    },
                    Err(e) => Err(e),
                }
            }
            Due::Wait(_) => Ok(Out::default()),
        };
        match result {
            Ok(out) => self.say(&id, out),
            Err(e @ LineError::Silent(_)) => {
                let out = device.failed(&*self.protocol, now(), &at(), &e);
                self.say(&id, out);
            }
            Err(e) => self.lost(&e),
        }
    }

    /// The line is gone: so is every device on it, until it opens again.
    fn lost(&mut self, e: &LineError) {
        self.open = None;
        let (now, at) = (self.now(), edgebus_client::now_rfc3339_ms());
        let ids: Vec<DeviceId> = self.devices.keys().cloned().collect();
        for id in ids {
            if let Some(device) = self.devices.get_mut(&id) {
                let out = device.failed(&*self.protocol, now, &at, e);
                self.say(&id, out);
            }
        }
    }

    fn say(&self, id: &DeviceId, out: Out) {
        let Some(device) = self.devices.get(id) else {
            return;
        };
        if let Some(state) = out.state {
            tracing::info!(device = %id, state = ?state.state, why = state.why.as_deref().unwrap_or(""), "device");
            self.outbox.state(id, state);
        }
        if !out.readings.is_empty() {
            self.outbox.report(id, out.readings, device.gen_seen());
        }
        if out.finished {
            self.outbox
                .mark_after_report(id, device.mark(&*self.protocol));
        }
    }
}

enum Next {
    Now(DeviceId, Due),
    At(u64),
    Idle,
}
