//! The artefact: what the recorder leaves on the disk, read by others than itself.

mod encrypted;
mod faults;
mod laid_out;
mod recorded;
mod session_copy;
mod synthetic;
