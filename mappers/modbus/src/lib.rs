//! The Modbus mapper: TCP and RTU.
