//! The embedded Kubernetes API server on SQLite.
