//! The edge end of the cloud link.
