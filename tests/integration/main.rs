//! The real binary, spoken to as the world does: HTTP, WebSocket, UDP, signals and files. One binary with a module
//! per subject, so that the server is linked once.

mod admission;
mod bad_input;
mod booking;
mod commands;
mod restart;
mod server;
