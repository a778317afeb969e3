//! The artefact: what the recorder leaves on the disk, read by others than itself.

mod disks;
mod encrypted;
mod faults;
mod laid_out;
mod pictures;
mod quality;
mod recorded;
mod recovered;
mod session_copy;
mod synthetic;
