//! The life of a mapper: describe, hello, assigned devices, polling, writes with read-back.
