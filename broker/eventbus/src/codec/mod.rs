//! MQTT 3.1.1 and 5.0 packets to and from bytes: no sockets, no clock, no state between
//! packets.
//!
//! [`decode`] is strict: whatever the specifications call malformed or a protocol error and
//! one packet alone can show is refused, with a [`CodecError`] that says what was wrong and maps
//! to a reason code. What depends on the connection (a second CONNECT, aliases, flow control)
//! is the front's to check; what depends on the direction is [`Packet::check_from_client`].

mod decode;
mod encode;
mod error;
mod packet;
mod properties;
mod reason;
pub mod topic;
mod wire;

pub use decode::decode;
pub use encode::encode;
pub use error::CodecError;
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Publish, QoS, RetainHandling,
    SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Version, Will,
};
pub use properties::{Properties, PropertySet};
pub use reason::ReasonCode;
pub use wire::MAX_VARINT;

#[cfg(test)]
mod tests;
