//! Kubernetes-side types: Device, DeviceModel, DeviceStatus, their CRDs, and sealing.
