//! One assigned device as a pure state machine: what to ask next, what to say of the answers, what
//! is owed to each desired generation. The loop around it (`line`) does what [`Due`] says and tells
//! what came of it. Time comes in as milliseconds of a monotonic clock; `at` is the wall clock's
//! text for reports.
//!
//! A desired generation is written once:
//!
//! ```text
//! live want ───────────────► Write ─► ReadBack ─► done: applied | notEffective
//! after a crash, readable:   ReadFirst ─ same ──► done: unchanged (applied, if a write had begun)
//!                                │ differs
//!                                └──► Write …
//! cannot be read back:       Mark ─► Write ─────► done: applied
//! … and a crash after Mark:  ───────────────────► done: unknown
//! ```

use crate::protocol::{LineError, PointError, Protocol, lower_keys};
use crate::value::coerce;
use edgebus_bus::DeviceId;
use edgebus_bus::payload::{
    Access, DeviceConfig, DeviceState, DeviceUp, Gen, Mark, Marked, OnReconnect, Outcome,
    PropertyConfig, Props, Quality, Reading, Want,
};
use serde_json::Value;

/// How a protocol wants its devices to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// After a device gave no answer, the first pause before it is asked again; doubles each time.
    pub demote_from_ms: u64,
    /// The longest such pause.
    pub demote_to_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            demote_from_ms: 1_000,
            demote_to_ms: 30_000,
        }
    }
}

/// What to do next with a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Read these properties (by index).
    Read(Vec<usize>),
    /// Take the next step of a write.
    Write(usize, Step),
    /// Nothing before this time; none = nothing until something changes.
    Wait(Option<u64>),
}

/// The next step towards a desired value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read, and write only if it differs.
    ReadFirst,
    /// Put on record that a write begins that cannot be read back.
    Mark,
    /// Write.
    Write,
    /// Prove it.
    ReadBack,
}

/// What to tell the bus.
#[derive(Debug, Default, PartialEq)]
pub struct Out {
    /// Readings to report.
    pub readings: Props<Reading>,
    /// A change of state.
    pub state: Option<DeviceState>,
    /// A generation was finished: the mark is to be stored, after the report is.
    pub finished: bool,
}

struct Todo {
    r#gen: Gen,
    value: Value,
    step: Step,
    /// A write of this generation may have reached the device.
    begun: bool,
}

struct Prop<P: Protocol> {
    config: PropertyConfig,
    /// Its address, or why it has none.
    point: Result<P::Point, String>,
    due: Option<u64>,
    /// What was last reported, and when.
    said: Option<(Value, Quality, u64)>,
    todo: Option<Todo>,
    /// Last generation acted on.
    done: Option<Gen>,
}

/// One device.
pub struct Device<P: Protocol> {
    /// uid of the Device object.
    pub uid: String,
    /// What its configData means.
    pub dev: P::Dev,
    on_reconnect: OnReconnect,
    settings: Settings,
    props: Vec<Prop<P>>,
    want: Want,
    up: DeviceUp,
    fails: u32,
    retry_at: u64,
}

impl<P: Protocol> Device<P> {
    /// Compiles a configuration. Errors of single properties are reported with the first readings.
    pub fn new(
        protocol: &P,
        id: &DeviceId,
        config: &DeviceConfig,
        now: u64,
    ) -> Result<Self, String> {
        let dev = protocol.device(id, &lower_keys(&config.protocol))?;
        let props = config.properties.iter().map(|p| Prop {
            point: protocol.point(&dev, p, &lower_keys(&p.visitor)),
            due: p.collect_ms.map(|_| now),
            config: p.clone(),
            said: None,
            todo: None,
            done: None,
        });
        Ok(Self {
            uid: config.uid.clone(),
            on_reconnect: config.on_reconnect,
            settings: protocol.timing(&dev),
            props: props.collect(),
            dev,
            want: Want::default(),
            up: DeviceUp::Unknown,
            fails: 0,
            retry_at: 0,
        })
    }

    /// Takes over what an older configuration of the same device knew.
    pub fn inherit(&mut self, old: Device<P>, protocol: &P) {
        if old.uid != self.uid {
            return;
        }
        let same_device = old.dev == self.dev;
        self.want = old.want;
        for mut was in old.props {
            let Some(now) = self
                .props
                .iter_mut()
                .find(|p| p.config.name == was.config.name)
            else {
                continue;
            };
            now.done = was.done.take();
            now.todo = was.todo.take();
            if same_device && now.point == was.point {
                now.said = was.said.take();
            }
            // What a step means depends on the point: an unfinished one starts over.
            if let (Some(todo), Ok(point)) = (&mut now.todo, &now.point) {
                todo.step = first_step(protocol, point, todo.begun);
            }
        }
        if same_device {
            (self.up, self.fails, self.retry_at) = (old.up, old.fails, old.retry_at);
        }
    }

    /// The mapper's own memory, read back after a restart.
    pub fn remember(&mut self, mark: &Mark) {
        if mark.uid != self.uid {
            return;
        }
        for prop in &mut self.props {
            match mark.props.get(&prop.config.name) {
                Some(Marked { r#gen, done: true }) => prop.done = Some(r#gen.clone()),
                Some(Marked { r#gen, done: false }) => {
                    prop.todo = Some(Todo {
                        r#gen: r#gen.clone(),
                        value: Value::Null,
                        step: Step::Mark,
                        begun: true,
                    });
                }
                None => {}
            }
        }
    }

    /// The memory to store.
    pub fn mark(&self, protocol: &P) -> Mark {
        let one = |p: &Prop<P>| {
            let unprovable = p
                .point
                .as_ref()
                .is_ok_and(|point| !protocol.readable(point));
            let begun = p.todo.as_ref().filter(|t| t.begun && unprovable);
            let marked = match (begun, &p.done) {
                (Some(t), _) => Marked {
                    r#gen: t.r#gen.clone(),
                    done: false,
                },
                (None, Some(g)) => Marked {
                    r#gen: g.clone(),
                    done: true,
                },
                (None, None) => return None,
            };
            Some((p.config.name.clone(), marked))
        };
        Mark {
            uid: self.uid.clone(),
            props: self.props.iter().filter_map(one).collect(),
        }
    }

    /// Takes desired values. `live` = this process saw the change happen; otherwise a write may
    /// have been begun before, by this process or the one before it.
    pub fn want(&mut self, protocol: &P, want: &Want, live: bool, at: &str) -> Out {
        let mut out = Out::default();
        self.want = want.clone();
        for i in 0..self.props.len() {
            let prop = &mut self.props[i];
            let Some(wanted) = want.props.get(&prop.config.name) else {
                prop.todo = None;
                continue;
            };
            if prop.done.as_ref() == Some(&wanted.r#gen) {
                prop.todo = None;
                continue;
            }
            let was = prop.todo.take();
            if was
                .as_ref()
                .is_some_and(|t| t.r#gen == wanted.r#gen && !t.value.is_null())
            {
                prop.todo = was;
                continue;
            }
            let begun = was.is_some_and(|t| t.r#gen == wanted.r#gen && t.begun);
            let value = match (&prop.point, coerce(&prop.config, &wanted.value)) {
                (Err(why), _) => Err(PointError::new("configuration", why.clone())),
                (_, Err(e)) => Err(PointError::new("outOfRange", e.to_string())),
                (Ok(p), _) if prop.config.access == Access::ReadOnly || !protocol.writable(p) => {
                    Err(PointError::new(
                        "readOnly",
                        format!("property {:?} cannot be written", prop.config.name),
                    ))
                }
                (_, Ok(value)) => Ok(value),
            };
            let value = match value {
                Ok(value) => value,
                Err(e) => {
                    let g = wanted.r#gen.clone();
                    self.finish(i, g, Outcome::Refused, None, Some(e), at, &mut out);
                    continue;
                }
            };
            let readable = prop.point.as_ref().is_ok_and(|p| protocol.readable(p));
            let step = match (readable, live) {
                (true, true) => Step::Write,
                (true, false) => Step::ReadFirst,
                (false, _) if begun && self.on_reconnect == OnReconnect::Hold => {
                    let e = PointError::new(
                        "unknown",
                        "the process ended while this was being written, and the point cannot be read back",
                    );
                    let g = wanted.r#gen.clone();
                    self.finish(i, g, Outcome::Unknown, None, Some(e), at, &mut out);
                    continue;
                }
                (false, _) => Step::Mark,
            };
            self.props[i].todo = Some(Todo {
                r#gen: wanted.r#gen.clone(),
                value,
                step,
                begun,
            });
        }
        out
    }

    /// What to do now.
    pub fn due(&self, now: u64) -> Due {
        if now < self.retry_at {
            return Due::Wait(Some(self.retry_at));
        }
        if let Some((i, todo)) = self
            .props
            .iter()
            .enumerate()
            .find_map(|(i, p)| Some((i, p.todo.as_ref()?)))
        {
            return Due::Write(i, todo.step);
        }
        let ready: Vec<usize> = (0..self.props.len())
            .filter(|i| {
                self.props[*i].point.is_ok() && self.props[*i].due.is_some_and(|t| t <= now)
            })
            .collect();
        if !ready.is_empty() {
            return Due::Read(ready);
        }
        Due::Wait(
            self.props
                .iter()
                .filter(|p| p.point.is_ok())
                .filter_map(|p| p.due)
                .min(),
        )
    }

    /// The points of these properties.
    pub fn points(&self, props: &[usize]) -> Vec<&P::Point> {
        props
            .iter()
            .filter_map(|i| self.props[*i].point.as_ref().ok())
            .collect()
    }

    /// The value that is being written to a property.
    pub fn wanted(&self, prop: usize) -> Option<&Value> {
        self.props[prop].todo.as_ref().map(|t| &t.value)
    }

    /// Properties whose configuration makes no sense, to be said once at the start.
    pub fn complaints(&mut self, now: u64, at: &str) -> Out {
        let mut out = Out::default();
        for prop in &mut self.props {
            if let Err(why) = &prop.point
                && prop.said.is_none()
            {
                prop.said = Some((Value::Null, Quality::Bad, now));
                let e = PointError::new("configuration", why.clone());
                out.readings.insert(prop.config.name.clone(), bad(&e, at));
            }
        }
        out
    }

    /// The device answered a [`Due::Read`].
    pub fn answered(
        &mut self,
        protocol: &P,
        now: u64,
        at: &str,
        props: &[usize],
        values: Vec<Result<Value, PointError>>,
    ) -> Out {
        let mut out = Out::default();
        let all_bad = !values.is_empty() && values.iter().all(Result::is_err);
        let why = values
            .iter()
            .find_map(|v| v.as_ref().err())
            .map(|e| e.why.clone());
        for (i, value) in props.iter().zip(values) {
            self.schedule(*i, now);
            self.read(*i, value, now, at, false, &mut out);
        }
        self.alive(
            protocol,
            if all_bad {
                DeviceUp::Unhealthy
            } else {
                DeviceUp::Online
            },
            why,
            at,
            &mut out,
        );
        out
    }

    fn schedule(&mut self, i: usize, now: u64) {
        let prop = &mut self.props[i];
        if let (Some(due), Some(every)) = (prop.due, prop.config.collect_ms) {
            let every = every.max(1);
            // Keeps the phase; what was missed is skipped, not made up for.
            prop.due = Some(due + every * (now.saturating_sub(due) / every + 1));
        }
    }

    fn read(
        &mut self,
        i: usize,
        value: Result<Value, PointError>,
        now: u64,
        at: &str,
        force: bool,
        out: &mut Out,
    ) {
        let prop = &mut self.props[i];
        let mut reading = match value {
            Ok(value) => Reading {
                value,
                at: at.to_owned(),
                quality: Quality::Good,
                cause: None,
                outcome: None,
                gen_seen: None,
                why: None,
            },
            Err(e) => bad(&e, at),
        };
        if let Some(n) = reading.value.as_f64() {
            let (low, high) = (prop.config.minimum, prop.config.maximum);
            if low.is_some_and(|l| n < l) || high.is_some_and(|h| n > h) {
                (reading.quality, reading.cause) =
                    (Quality::Uncertain, Some("outOfRange".to_owned()));
            }
        }
        let news = match &prop.said {
            None => true,
            Some((value, quality, said_at)) => {
                *quality != reading.quality
                    || moved(value, &reading.value, prop.config.deadband)
                    || prop
                        .config
                        .report_ms
                        .is_some_and(|every| now.saturating_sub(*said_at) >= every)
            }
        };
        if news || force {
            prop.said = Some((reading.value.clone(), reading.quality, now));
            out.readings.insert(prop.config.name.clone(), reading);
        }
    }

    fn alive(&mut self, protocol: &P, up: DeviceUp, why: Option<String>, at: &str, out: &mut Out) {
        (self.fails, self.retry_at) = (0, 0);
        let back = self.up == DeviceUp::Offline;
        self.become_(up, why.filter(|_| up != DeviceUp::Online), at, out);
        if back && self.on_reconnect == OnReconnect::Reapply {
            for i in 0..self.props.len() {
                let prop = &mut self.props[i];
                if let (Some(wanted), Ok(point)) =
                    (self.want.props.get(&prop.config.name), &prop.point)
                    && prop.todo.is_none()
                    && protocol.writable(point)
                    && let Ok(value) = coerce(&prop.config, &wanted.value)
                {
                    let step = first_step(protocol, point, true);
                    prop.todo = Some(Todo {
                        r#gen: wanted.r#gen.clone(),
                        value,
                        step,
                        begun: false,
                    });
                }
            }
        }
    }

    fn become_(&mut self, up: DeviceUp, why: Option<String>, at: &str, out: &mut Out) {
        if self.up != up {
            self.up = up;
            out.state = Some(DeviceState {
                state: up,
                why,
                at: at.to_owned(),
            });
        }
    }

    /// The line failed while this device was asked (or all its line is gone).
    pub fn failed(&mut self, protocol: &P, now: u64, at: &str, error: &LineError) -> Out {
        let mut out = Out::default();
        let why = error.to_string();
        self.fails = self.fails.saturating_add(1);
        let pause = self
            .settings
            .demote_from_ms
            .saturating_mul(1 << (self.fails - 1).min(16));
        self.retry_at = now + pause.min(self.settings.demote_to_ms);
        for i in 0..self.props.len() {
            if self.props[i].todo.as_ref().is_some_and(|t| t.begun) {
                self.interrupted(protocol, i, &why, at, &mut out);
            }
            let prop = &mut self.props[i];
            if prop.point.is_ok()
                && prop
                    .said
                    .as_ref()
                    .is_none_or(|(_, q, _)| *q != Quality::Bad)
                && prop.config.collect_ms.is_some()
            {
                prop.said = Some((Value::Null, Quality::Bad, now));
                let e = PointError::new("commFailure", why.clone());
                out.readings
                    .entry(prop.config.name.clone())
                    .or_insert_with(|| bad(&e, at));
            }
        }
        self.become_(DeviceUp::Offline, Some(why), at, &mut out);
        out
    }

    /// A write may or may not have reached the device.
    fn interrupted(&mut self, protocol: &P, i: usize, why: &str, at: &str, out: &mut Out) {
        let prop = &mut self.props[i];
        let (Some(todo), Ok(point)) = (&mut prop.todo, &prop.point) else {
            return;
        };
        if protocol.readable(point) || self.on_reconnect == OnReconnect::Reapply {
            todo.step = first_step(protocol, point, true);
            return;
        }
        let e = PointError::new(
            "unknown",
            format!(
                "the answer to the write never came ({why}), and the point cannot be read back"
            ),
        );
        let g = todo.r#gen.clone();
        self.finish(i, g, Outcome::Unknown, None, Some(e), at, out);
    }

    /// A step of a write was taken; `result` is what the device said (the value, for reads).
    pub fn stepped(
        &mut self,
        protocol: &P,
        now: u64,
        at: &str,
        i: usize,
        step: Step,
        result: Result<Value, PointError>,
    ) -> Out {
        let mut out = Out::default();
        let prop = &mut self.props[i];
        let (Some(todo), Ok(point)) = (&mut prop.todo, &prop.point) else {
            return out;
        };
        let (g, readable) = (todo.r#gen.clone(), protocol.readable(point));
        match (step, result) {
            (Step::Mark, _) => (todo.begun, todo.step) = (true, Step::Write),
            (Step::ReadFirst, Ok(value)) if protocol.same(point, &todo.value, &value) => {
                let outcome = if todo.begun {
                    Outcome::Applied
                } else {
                    Outcome::Unchanged
                };
                self.finish(i, g, outcome, Some((value, now)), None, at, &mut out);
            }
            (Step::ReadFirst, Ok(_)) => todo.step = Step::Write,
            (Step::ReadFirst, Err(e)) if todo.begun => {
                self.finish(i, g, Outcome::Unknown, None, Some(e), at, &mut out);
            }
            // Nothing has been written yet and the device will not show the point: the write's own
            // answer has to do.
            (Step::ReadFirst, Err(_)) => todo.step = Step::Write,
            (Step::Write, Ok(_)) if readable => (todo.begun, todo.step) = (true, Step::ReadBack),
            (Step::Write, Ok(_)) => {
                let value = todo.value.clone();
                self.finish(
                    i,
                    g,
                    Outcome::Applied,
                    Some((value, now)),
                    None,
                    at,
                    &mut out,
                );
            }
            (Step::Write, Err(e)) => {
                self.finish(i, g, Outcome::Refused, None, Some(e), at, &mut out)
            }
            (Step::ReadBack, Ok(value)) => {
                let is = protocol.same(point, &todo.value, &value);
                let outcome = if is {
                    Outcome::Applied
                } else {
                    Outcome::NotEffective
                };
                self.finish(i, g, outcome, Some((value, now)), None, at, &mut out);
            }
            (Step::ReadBack, Err(e)) => {
                self.finish(i, g, Outcome::Unknown, None, Some(e), at, &mut out)
            }
        }
        self.alive(protocol, DeviceUp::Online, None, at, &mut out);
        out
    }

    /// A write is about to be sent: from here on it may have reached the device.
    pub fn begin(&mut self, i: usize) {
        if let Some(todo) = &mut self.props[i].todo {
            todo.begun = true;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn finish(
        &mut self,
        i: usize,
        g: Gen,
        outcome: Outcome,
        value: Option<(Value, u64)>,
        error: Option<PointError>,
        at: &str,
        out: &mut Out,
    ) {
        let now = value.as_ref().map(|v| v.1);
        match (value, &error) {
            (Some((value, now)), _) => self.read(i, Ok(value), now, at, true, out),
            (None, Some(e)) => {
                // The last good value stands: only the write failed.
                let mut reading = bad(e, at);
                if let Some((value, quality, _)) = &self.props[i].said {
                    (reading.value, reading.quality) = (value.clone(), *quality);
                }
                out.readings
                    .insert(self.props[i].config.name.clone(), reading);
            }
            (None, None) => {}
        }
        let prop = &mut self.props[i];
        if let Some(reading) = out.readings.get_mut(&prop.config.name) {
            reading.outcome = Some(outcome);
            reading.gen_seen = Some(g.clone());
            reading.why = error.map(|e| e.why);
        }
        (prop.todo, prop.done) = (None, Some(g));
        // What was just read need not be read again at once.
        if let (Some(now), Some(due)) = (now, prop.due)
            && due <= now
        {
            self.schedule(i, now);
        }
        out.finished = true;
    }

    /// The want that has been acted on whole, if it has.
    pub fn gen_seen(&self) -> Option<Gen> {
        let settled = self.props.iter().all(|p| p.todo.is_none());
        (settled && !self.want.props.is_empty()).then(|| self.want.r#gen.clone())
    }
}

fn first_step<P: Protocol>(protocol: &P, point: &P::Point, begun: bool) -> Step {
    match (protocol.readable(point), begun) {
        (true, true) => Step::ReadFirst,
        (true, false) => Step::Write,
        (false, _) => Step::Mark,
    }
}

fn bad(e: &PointError, at: &str) -> Reading {
    Reading {
        value: Value::Null,
        at: at.to_owned(),
        quality: Quality::Bad,
        cause: Some(e.cause.to_owned()),
        outcome: None,
        gen_seen: None,
        why: Some(e.why.clone()),
    }
}

/// Has the value left the dead band around what was last said?
fn moved(said: &Value, now: &Value, deadband: Option<f64>) -> bool {
    match (deadband, said.as_f64(), now.as_f64()) {
        (Some(band), Some(a), Some(b)) => (a - b).abs() > band,
        _ => said != now,
    }
}

#[cfg(test)]
mod tests;
