//! The frames of the link and the limits that hold for each field before anything is allocated.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::{Digest, Hash};

/// The protocol spoken here; both ends must name the same number in `Hello`.
pub const PROTO: u16 = 1;

/// Sizes in bytes, counts in items. The decoder checks them before it allocates.
pub mod limits {
    /// One frame with everything in it: a Kubernetes object of at most 1.5 MiB, sealed and base64-coded.
    pub const FRAME_BYTES: usize = 4 << 20;
    /// One WebSocket message: small frames packed to at most 64 KiB, and one more of any size.
    pub const MESSAGE_BYTES: usize = FRAME_BYTES + (64 << 10);
    /// A topic.
    pub const TOPIC_BYTES: usize = 1024;
    /// A Kubernetes uid.
    pub const UID_BYTES: usize = 128;
    /// A kind.
    pub const KIND_BYTES: usize = 63;
    /// Names, ids, reasons.
    pub const TEXT_BYTES: usize = 1024;
    /// A certificate request or a certificate chain, PEM.
    pub const PEM_BYTES: usize = 64 << 10;
    /// Digests in a `Hello`.
    pub const HAVE_ITEMS: usize = 256;
    /// Entries of one `Manifest` or `Want` frame; longer lists come in several.
    pub const LIST_ITEMS: usize = 1024;
    /// Entries of a whole manifest. A node with more objects of one kind is not served.
    pub const MANIFEST_ITEMS: usize = 200_000;
}

/// A label for one set of topics that is compared as a whole: `device`, `configmap`, `twin`, …
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Arc<str>);

/// Why a text is no [`Kind`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("kind {0:?}: wanted 1 to 63 of a-z, 0-9, '-' and '.'")]
pub struct KindError(pub String);

impl Kind {
    /// Kinds that mean something to the link itself; every other one is a mirrored kind of object.
    pub const NODE: &'static str = "node";
    pub const NODE_STATUS: &'static str = "node-status";
    pub const POD_STATUS: &'static str = "pod-status";
    pub const TWIN: &'static str = "twin";
    pub const EVENT: &'static str = "event";
    pub const BEAT: &'static str = "beat";

    pub fn new(text: &str) -> Result<Kind, KindError> {
        let fits = (1..=limits::KIND_BYTES).contains(&text.len());
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        if fits && plain {
            Ok(Kind(Arc::from(text)))
        } else {
            Err(KindError(text.chars().take(80).collect()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Kind {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why something was refused. HTTP's numbers where one fits, so that a Kubernetes answer passes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(pub u16);

impl Code {
    pub const INVALID: Code = Code(400);
    pub const FORBIDDEN: Code = Code(403);
    pub const NOT_FOUND: Code = Code(404);
    pub const CONFLICT: Code = Code(409);
    pub const GONE: Code = Code(410);
    pub const TOO_LARGE: Code = Code(413);
    pub const UNPROCESSABLE: Code = Code(422);
    pub const BUSY: Code = Code(429);
    pub const INTERNAL: Code = Code(500);
    pub const UNAVAILABLE: Code = Code(503);
    /// The other end speaks another version of this protocol, or broke its rules.
    pub const PROTOCOL: Code = Code(1000);
    /// A newer connection of the same node took over.
    pub const SUPERSEDED: Code = Code(1001);
    /// The cluster behind the link is not the one that was pinned at join.
    pub const CLUSTER_CHANGED: Code = Code(1002);
    /// The node's certificate was revoked.
    pub const REVOKED: Code = Code(1003);
    /// The process ends in good order.
    pub const SHUTDOWN: Code = Code(1004);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// First frame of both ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    pub proto: u16,
    /// The node's name. cloud-bridge repeats the name it read from the certificate.
    pub node: String,
    /// Which store the edge's bus keeps; empty from the cloud.
    pub store_id: String,
    /// uid of kube-system: at the edge the one pinned at join, in the cloud the one behind the bridge.
    pub cluster_id: String,
    /// Version of the sender's software, shown to people only.
    pub version: String,
    /// The sender can inflate zstd bodies. Nothing compresses yet; the decoder refuses compressed frames.
    pub zstd: bool,
    /// What the sender holds of each kind it receives. A missing kind is an empty one.
    pub have: BTreeMap<Kind, Digest>,
}

/// "This is the state of that topic." `seq` 0 asks for no acknowledgement (heartbeats).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    pub seq: u64,
    pub kind: Kind,
    pub topic: String,
    /// uid of the Kubernetes object, or empty where there is none.
    pub uid: String,
    pub hash: Hash,
    pub body: Bytes,
}

/// One line of a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub topic: String,
    pub uid: String,
    pub hash: Hash,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    Hello(Hello),
    /// The sender is about to close, and why.
    Bye {
        code: Code,
        why: String,
    },
    Put(Put),
    /// Explicit deletion of the object with that uid; another uid on that topic stays.
    Del {
        seq: u64,
        kind: Kind,
        topic: String,
        uid: String,
    },
    /// Durable at the receiver.
    Ack {
        seq: u64,
    },
    /// Refused. `permanent` counts as acknowledged: the same bytes will never be accepted.
    Nack {
        seq: u64,
        code: Code,
        why: String,
        permanent: bool,
    },
    /// What the sender wants of a kind, in chunks numbered from 0. Only `complete` lists imply deletions.
    Manifest {
        kind: Kind,
        part: u32,
        complete: bool,
        last: bool,
        entries: Vec<Entry>,
    },
    /// What the receiver lacks of a manifest, in chunks.
    Want {
        kind: Kind,
        last: bool,
        topics: Vec<String>,
    },
    /// "You hold all of that kind, and this is its digest."
    Same {
        kind: Kind,
        digest: Digest,
    },
    /// "This is what I hold": unasked, or in answer to a `Same` that is not true. If it is not what the sender
    /// thinks, a manifest follows.
    Have {
        kind: Kind,
        digest: Digest,
    },
    Ping {
        at_ms: u64,
    },
    Pong {
        at_ms: u64,
    },
    /// Certificate request of the node that the connection's certificate names.
    Renew {
        seq: u64,
        csr_pem: String,
    },
    Renewed {
        seq: u64,
        cert_pem: String,
        ca_pem: String,
    },
    /// Byte streams (logs, exec): the sender of `Data` may have at most the granted credit in flight.
    Open {
        stream: u32,
        head: Bytes,
    },
    Data {
        stream: u32,
        body: Bytes,
    },
    Credit {
        stream: u32,
        bytes: u32,
    },
    Close {
        stream: u32,
        code: Code,
        why: String,
    },
}

impl Frame {
    /// Name for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Hello(_) => "Hello",
            Frame::Bye { .. } => "Bye",
            Frame::Put(_) => "Put",
            Frame::Del { .. } => "Del",
            Frame::Ack { .. } => "Ack",
            Frame::Nack { .. } => "Nack",
            Frame::Manifest { .. } => "Manifest",
            Frame::Want { .. } => "Want",
            Frame::Same { .. } => "Same",
            Frame::Have { .. } => "Have",
            Frame::Ping { .. } => "Ping",
            Frame::Pong { .. } => "Pong",
            Frame::Renew { .. } => "Renew",
            Frame::Renewed { .. } => "Renewed",
            Frame::Open { .. } => "Open",
            Frame::Data { .. } => "Data",
            Frame::Credit { .. } => "Credit",
            Frame::Close { .. } => "Close",
        }
    }
}
