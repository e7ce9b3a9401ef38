//! What a session asks of its caller, or tells it.

use std::sync::Arc;

use crate::{Code, Digest, Frame, Hello, Kind, Put};

/// Names one effect until its result is reported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// What the caller is to do or to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// Greeted: state flows from here on.
    Open {
        peer: Hello,
    },
    /// Make durable, then [`crate::Session::done`] or [`crate::Session::failed`].
    Apply {
        ticket: Ticket,
        put: Put,
    },
    /// Newest heartbeat.
    Beat {
        put: Put,
    },
    /// Remove, then [`crate::Session::done`] or [`crate::Session::failed`].
    Remove {
        ticket: Ticket,
        kind: Kind,
        topic: Arc<str>,
        uid: String,
    },
    /// This end holds all of that kind.
    Synced {
        kind: Kind,
        digest: Digest,
    },
    /// The event with that spool number is settled (`refused`: for good, with the reason).
    EventDone {
        id: u64,
        refused: Option<String>,
    },
    /// The other end will never take what this topic holds now.
    Rejected {
        kind: Kind,
        topic: Arc<str>,
        code: Code,
        why: String,
    },
    /// The other end cannot take it now; it will be sent again.
    Delayed {
        kind: Kind,
        topic: Arc<str>,
        code: Code,
        why: String,
    },
    /// Answer with [`crate::Session::renewed`] or [`crate::Session::refuse`].
    Renew {
        seq: u64,
        csr_pem: String,
    },
    Renewed {
        cert_pem: String,
        ca_pem: String,
    },
    RenewRefused {
        code: Code,
        why: String,
    },
    /// `Open`, `Data`, `Credit` or `Close` of a byte stream.
    Stream(Frame),
    /// Round-trip time measured.
    Rtt {
        ms: u64,
    },
    /// Write what is left, then close the connection. `by_peer`: the other end said so.
    Closed {
        code: Code,
        why: String,
        by_peer: bool,
    },
}
