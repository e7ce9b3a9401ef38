//! The EventBus: an MQTT front with a durable store over rumqttd's Router.

pub mod codec;
pub mod router;
