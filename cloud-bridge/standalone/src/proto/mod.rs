//! Protobuf request bodies as JSON.
