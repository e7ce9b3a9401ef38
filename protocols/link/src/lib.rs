//! The link contract: frames, digests, resync and acknowledgements as sans-io state machines.
//!
//! Both ends of the link run the same [`Session`]; time, sockets, files and the bus belong to the caller.
//!
//! ```text
//!   edge (link)                                   cloud (cloud-bridge)
//!   Hello{have: what I hold of device, …} ──────► │ equal digest: Same ── nothing else travels
//!   │ ◄────────────────────────────────────────── │ else: Manifest (topic, uid, hash), in chunks
//!   Want{what differs} ─────────────────────────► │
//!   │ ◄─────────────────────────────── Put, Del ─ │ within the budget of their lane
//!   Ack, once it is on the bus's disk ──────────► │
//!   │ ◄──────────── Same{digest}: you hold it all │ the mirror of that kind is complete
//! ```
//! Upward (status, twins) the roles are swapped. Events have a lane of their own: ordered, at least once.

mod act;
mod codec;
mod digest;
mod enrol;
mod events;
mod frame;
mod item;
mod kind_state;
mod lane;
mod receiver;
mod sender;
mod session;

pub use act::{Act, Ticket};
pub use codec::{CodecError, Frames, decode, encode, encode_message};
pub use digest::{Digest, Hash, canonical_json};
pub use enrol::{
    ENROL_PATH, EnrolError, EnrolReply, EnrolRequest, JoinToken, LINK_PATH, SUBPROTOCOL, TokenError,
};
pub use events::{EventSender, Sequenced};
pub use frame::{Code, Entry, Frame, Hello, Kind, KindError, PROTO, Put, limits};
pub use item::{Item, TooLarge};
pub use lane::{Budget, Budgets, Lane};
pub use receiver::Receiver;
pub use sender::Sender;
pub use session::{Ident, Session, Timing};
