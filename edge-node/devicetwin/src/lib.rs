//! Device twins: desired and reported state, assignment to mappers, $hw topics.
