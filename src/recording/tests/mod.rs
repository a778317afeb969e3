//! The artefact: what the recorder leaves on the disk, read by others than itself.

mod disks;
mod faults;
mod laid_out;
mod pictures;
mod recorded;
mod synthetic;
