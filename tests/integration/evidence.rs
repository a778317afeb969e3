//! The recording is evidence: the real binary records media that carries its numbers, and what is in the files is held
//! against what was sent. Networks lose, clocks jump, and the process is killed.

mod clean;
mod clocks;
mod damage;
mod kills;
mod lossy;
mod meeting;
mod presence;
mod recorded;
