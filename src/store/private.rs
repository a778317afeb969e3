//! Strings that must not reach a log: secrets and personal data. Neither implements `Display`, and their `Debug`
//! says only what they are (STYLE.md: secrets and personal data never appear in the clear by accident).

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A code, a token or a key. It leaves only through [`Secret::expose`] or the answer it is serialised into.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret in the clear: to hand it to the one person it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A name, a fiscal code, a telephone number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Personal(String);

impl Personal {
    /// Wraps personal data.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The data in the clear: to show it to someone who may see it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Personal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Personal(…)")
    }
}

impl From<&str> for Personal {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
