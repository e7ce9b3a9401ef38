//! `edgebus node`: parent and supervisor of the broker and every unit.
