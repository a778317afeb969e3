//! What holds for the whole: the real binary, spoken to as the world does (HTTP, WebSocket, UDP, signals, files), and
//! the house's own rules. One binary with a module per subject, so that the server is linked once.

mod admission;
mod api;
mod architecture;
mod bad_input;
mod booking;
mod commands;
mod openapi;
mod restart;
mod server;
