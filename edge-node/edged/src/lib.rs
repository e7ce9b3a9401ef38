//! The light kubelet: the node's own status and heartbeat.
