//! KubeEdge $hw topics and payloads, to and from bus types.
