//! The sentences of the rules on virtual time, and what must never happen whatever happens.

mod act;
mod admission;
mod presence;
mod properties;
mod reference;
mod steps;
mod world;
