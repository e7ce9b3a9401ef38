//! The bus contract: topics, payloads, roles, limits.
