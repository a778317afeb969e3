//! Documents that people hand in: what may come in ([`check`]), what they are called ([`DisplayName`]), where they lie
//! ([`Folder`]) and who looks for viruses ([`Antivirus`]).
//!
//! What a document is says its content, never its name or its declared type. A document is taken whole or not at all:
//! nothing in it is repaired, taken out or rewritten, because its SHA-256 is what gets registered.
//!
//! Checks are blocking, bounded in time and memory, and read hostile bytes: they belong into `spawn_blocking`.

mod antivirus;
mod check;
mod folder;
mod name;
#[cfg(test)]
mod tests;

pub use self::antivirus::{Antivirus, ClamdAddress, ClamdAddressError, ScanError};
pub use self::check::{Unfit, check};
pub use self::folder::Folder;
pub use self::name::DisplayName;

/// The longest document (DOMAIN.md, step 8). More costs memory in each check, and all of it again for each upload that
/// runs at the same time.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;
