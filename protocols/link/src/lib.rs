//! The link contract: frames, digests, resync and acknowledgements as sans-io state machines.
