//! Lanes: every kind travels in one, each with its own budget of unacknowledged frames and bytes, so that a
//! flood of device data never delays the heartbeat that keeps the node Ready.

use crate::Kind;

/// In order of precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// Heartbeats: newest only, never acknowledged.
    Beat,
    /// Node and pod status.
    Status,
    /// Kubernetes objects going down.
    Object,
    Twin,
    /// Sequenced events.
    Event,
    /// Streams and telemetry.
    Bulk,
}

impl Lane {
    pub const ALL: [Lane; 6] = [
        Lane::Beat,
        Lane::Status,
        Lane::Object,
        Lane::Twin,
        Lane::Event,
        Lane::Bulk,
    ];

    pub fn of(kind: &Kind) -> Lane {
        match kind.as_str() {
            Kind::BEAT => Lane::Beat,
            Kind::NODE_STATUS | Kind::POD_STATUS => Lane::Status,
            Kind::TWIN => Lane::Twin,
            Kind::EVENT => Lane::Event,
            _ => Lane::Object,
        }
    }
}

/// What may be sent and not yet acknowledged. One frame may always be in flight, whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub frames: usize,
    pub bytes: usize,
}

/// One [`Budget`] per lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    pub status: Budget,
    pub object: Budget,
    pub twin: Budget,
    pub event: Budget,
    pub bulk: Budget,
}

impl Default for Budgets {
    fn default() -> Self {
        Budgets {
            status: Budget {
                frames: 64,
                bytes: 1 << 20,
            },
            object: Budget {
                frames: 64,
                bytes: 2 << 20,
            },
            twin: Budget {
                frames: 128,
                bytes: 1 << 20,
            },
            event: Budget {
                frames: 32,
                bytes: 256 << 10,
            },
            bulk: Budget {
                frames: 64,
                bytes: 256 << 10,
            },
        }
    }
}

impl Budgets {
    pub fn of(&self, lane: Lane) -> Budget {
        match lane {
            Lane::Beat => Budget {
                frames: 1,
                bytes: 4 << 10,
            },
            Lane::Status => self.status,
            Lane::Object => self.object,
            Lane::Twin => self.twin,
            Lane::Event => self.event,
            Lane::Bulk => self.bulk,
        }
    }
}

/// What a lane has in flight.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Used {
    pub frames: usize,
    pub bytes: usize,
}

impl Used {
    pub fn fits(&self, budget: Budget, bytes: usize) -> bool {
        self.frames == 0
            || (self.frames < budget.frames && self.bytes.saturating_add(bytes) <= budget.bytes)
    }

    pub fn take(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }

    pub fn give(&mut self, bytes: usize) {
        self.frames = self.frames.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
