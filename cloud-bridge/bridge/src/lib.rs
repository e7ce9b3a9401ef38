//! cloud-bridge: Kubernetes objects to edge nodes over the link, and their status back; enrolment.
