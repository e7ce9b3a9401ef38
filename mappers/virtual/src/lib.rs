//! The virtual mapper: devices that exist only in memory.
