//! The judges. They see what leaves the nodes and what reaches their disks, and never call what they judge: arithmetic of
//! quorums, rules of execution, the list of evidence are written here again.

mod chain;
mod model;
mod speech;

pub use chain::{Broken, Chain};
pub use model::Model;
pub use speech::Speech;
