//! Simplex with stake weights, as a value: inputs in, effects out.
