//! Sizes that every part of the bus agrees on, so that a bound is refused at the door and never
//! met halfway.

/// Longest topic or filter, in bytes.
pub const TOPIC_BYTES: usize = 1024;
/// Deepest topic or filter, in levels.
pub const TOPIC_LEVELS: usize = 32;
/// Largest payload of one message: above Kubernetes' 1.5 MiB object limit once trimmed.
pub const PAYLOAD_BYTES: usize = 2 * 1024 * 1024;
/// Largest whole MQTT packet: a payload, a topic and properties.
pub const PACKET_BYTES: usize = PAYLOAD_BYTES + 16 * 1024;
/// Filters that one client may hold at a time.
pub const FILTERS_PER_CLIENT: usize = 1024;
/// Messages that an inbox holds before it refuses the publisher.
pub const INBOX_MESSAGES: usize = 10_000;
/// Bytes that an inbox holds before it refuses the publisher.
pub const INBOX_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of all retained messages under `app/`.
pub const APP_RETAINED_BYTES: usize = 16 * 1024 * 1024;
