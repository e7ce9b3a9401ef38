//! One pass every ten seconds: look at the machine, say what changed, then beat. A process that is
//! stopped or stuck does not finish its pass, and so does not beat.

use crate::machine::{self, Facts, Figures, Machine};
use crate::status::{Conditions, status};
use anyhow::{Context, Result};
use edgebus_bus::payload::{Beat, NodeStatus, Object, Up};
use edgebus_bus::unit::Welcome;
use edgebus_bus::{NodeName, Topic};
use edgebus_client::unit::BadConfig;
use edgebus_client::{Bus, now_rfc3339_ms};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Said again after this time even if nothing has changed.
const REPEAT: Duration = Duration::from_secs(300);

/// How edged is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the node.
    pub node: NodeName,
    /// Folder on the file system that pods and the bus write to.
    pub data_dir: PathBuf,
    /// Time between two passes.
    pub pass: Duration,
}

impl Config {
    /// As the parent says.
    pub fn new(welcome: &Welcome) -> Result<Self> {
        let node = NodeName::new(&welcome.node).map_err(|e| BadConfig(e.to_string()))?;
        Ok(Self {
            node,
            data_dir: PathBuf::from(&welcome.data_dir),
            pass: Duration::from_secs(10),
        })
    }
}

/// Runs until `stop`.
pub async fn run(config: Config, bus: Bus, stop: CancellationToken) -> Result<()> {
    let mut node = Node {
        machine: machine::here(&config.data_dir),
        node: config.node.to_string(),
        conditions: Conditions::default(),
        said: None,
        trouble: false,
    };
    let mut ticks = interval(config.pass);
    // After a pause one pass, not all that were missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seq = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let begun = Instant::now();
        let pass = async {
            node.pass(&bus).await?;
            seq += 1;
            let loop_ok_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let beat = Beat { seq, loop_ok_ms };
            bus.send(&Topic::NodeBeat {}, &beat)
                .await
                .context("beating")
        };
        tokio::select! {
            done = pass => done?,
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// The status that the bus has.
struct Said {
    status: Object,
    at: Instant,
    /// Which connection it went over: behind the next one may be a broker that lost its store.
    connects: u64,
}

struct Node {
    machine: Machine,
    node: String,
    conditions: Conditions,
    said: Option<Said>,
    trouble: bool,
}

impl Node {
    async fn pass(&mut self, bus: &Bus) -> Result<()> {
        let looked = self.look();
        self.show(bus, looked.as_ref().err()).await?;
        let (facts, figures, trouble) = match looked {
            Ok((facts, figures)) => (facts, figures, None),
            Err(error) => (
                Facts::default(),
                Figures::default(),
                Some(format!("{error}")),
            ),
        };
        let now = now_rfc3339_ms();
        let conditions = self.conditions.step(&figures, trouble.as_deref(), &now);
        let new = match (&trouble, &self.said) {
            // What the machine is does not change because we cannot read it now.
            (Some(_), Some(said)) => {
                let mut new = said.status.clone();
                new.insert("conditions".into(), conditions.into());
                new
            }
            (Some(_), None) => Object::from_iter([("conditions".into(), conditions.into())]),
            (None, _) => status(&self.node, &facts, conditions),
        };
        let connects = bus.status().borrow().connects;
        let due = match &self.said {
            Some(said) => {
                said.status != new || said.at.elapsed() >= REPEAT || said.connects != connects
            }
            None => true,
        };
        if due {
            let said = NodeStatus {
                node: self.node.clone(),
                status: new.clone(),
            };
            bus.put(&Topic::NodeStatus {}, &said)
                .await
                .context("saying the node's status")?;
            self.said = Some(Said {
                status: new,
                at: Instant::now(),
                connects,
            });
        }
        Ok(())
    }

    fn look(&self) -> Result<(Facts, Figures), machine::MachineError> {
        Ok((self.machine.facts()?, self.machine.figures()?))
    }

    async fn show(&mut self, bus: &Bus, error: Option<&machine::MachineError>) -> Result<()> {
        if error.is_some() == self.trouble {
            return Ok(());
        }
        self.trouble = error.is_some();
        let (state, why) = match error {
            Some(error) => {
                tracing::warn!(%error, "this machine cannot be read");
                (Up::Degraded, Some(error.to_string()))
            }
            None => (Up::Up, None),
        };
        bus.set_health(state, why)
            .await
            .context("saying our health")
    }
}
