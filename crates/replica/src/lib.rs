//! One validator as a value: recovery, routing, fetch, sync and execution.
