//! What holds for the whole: one binary, one module per subject.

mod api;
mod architecture;
mod openapi;
