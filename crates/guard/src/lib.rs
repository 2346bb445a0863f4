//! The kernel guard: load, attach, pin, ban policy, map readers.
