//! What holds for the whole: one binary, one module per subject.

mod architecture;
mod openapi;
