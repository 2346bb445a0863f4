//! One engine under hand-made inputs: each rule alone.
