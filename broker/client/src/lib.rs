//! A process's life on the bus: connect, collections, own topics, inbox, health, shutdown.
