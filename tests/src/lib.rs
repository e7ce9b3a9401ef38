//! Harness, stories, architecture test and benchmarks.
