//! API keys, made, listed and revoked straight in the database: beside a running node, or without one.
//!
//! A node asks the database about a key at every request, so a new one opens and a revoked one closes at once.

use std::path::Path;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Fault, new_api_key};
use crate::id::KeyId;
use crate::store::{self, Hash, Store};
pub use crate::store::{ApiKey, Scope, Secret};

/// Longest name of a key, characters. It is for people who read the list.
pub const LONGEST_NAME: usize = 100;

/// The keys of one database.
#[derive(Debug)]
pub struct Keys {
    store: Store,
    clock: Clock,
}

/// Why nothing was made, listed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is a file that does not exist: the configuration's fault, or too early.
    #[error(
        "there is no database at {0}: `sportello serve` makes it at its first start; or the configuration is another \
         node's (--config)"
    )]
    NoDatabase(String),
    /// The caller's fault.
    #[error("the name must have 1 to {LONGEST_NAME} characters, none of them a control character")]
    BadName,
    /// The caller's fault. Without what they wrote: it may be the key itself.
    #[error("that is no key's id: `sportello keys list` shows them; a key itself is not its id")]
    BadId,
    /// The caller's fault.
    #[error("there is no key {0}; `sportello keys list` shows those there are")]
    Unknown(KeyId),
    /// The caller's fault.
    #[error("key {0} was revoked already, at {1}")]
    AlreadyRevoked(KeyId, Timestamp),
    /// The operating system's.
    #[error("cannot make a key: {0}")]
    NotMade(#[from] Fault),
    /// The database's.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl Keys {
    /// Opens the configured database.
    ///
    /// # Errors
    /// There is none yet, or it does not answer.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let place = config.database();
        // Made here, the file would belong to whoever runs the command, who may not be whom the node runs as.
        if !place.contains("://") && !Path::new(&place).exists() {
            return Err(Error::NoDatabase(place));
        }
        Ok(Self { store: Store::open(&place).await?, clock: Clock::new() })
    }

    /// Makes a key, which is told this once: only its hash is kept.
    ///
    /// # Errors
    /// [`Error::BadName`], no random numbers, or the database.
    pub async fn create(&self, scope: Scope, name: &str) -> Result<(KeyId, Secret), Error> {
        let name = name.trim();
        if !(1..=LONGEST_NAME).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(Error::BadName);
        }
        let now = self.clock.now().wall;
        let (id, key) = (KeyId::new(now), new_api_key(scope)?);
        self.store.add_key(id, name, Hash::of_token(key.expose()), scope, now).await?;
        Ok((id, key))
    }

    /// Every key there ever was, oldest first.
    ///
    /// # Errors
    /// The database.
    pub async fn list(&self) -> Result<Vec<ApiKey>, Error> {
        Ok(self.store.keys().await?)
    }

    /// Revokes a key for ever; gives what it was.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::AlreadyRevoked`], or the database.
    pub async fn revoke(&self, id: KeyId) -> Result<ApiKey, Error> {
        let done = self.store.revoke_key(id, self.clock.now().wall).await?;
        let key = self.store.keys().await?.into_iter().find(|key| key.id == id).ok_or(Error::Unknown(id))?;
        match key.revoked {
            Some(at) if !done => Err(Error::AlreadyRevoked(id, at)),
            _ => Ok(key),
        }
    }

    /// Closes the database.
    pub async fn close(self) {
        self.store.close().await;
    }
}
