//! Schemas of built-in kinds and of custom resources.
