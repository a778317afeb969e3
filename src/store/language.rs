//! The language in which a person is written to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Language of a person's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "it")]
pub enum Language {
    /// Italian.
    #[default]
    It,
    /// German.
    De,
    /// English.
    En,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 3] = [Self::It, Self::De, Self::En];

    /// The language's word, as in JSON and in the configuration (ISO 639-1).
    pub const fn word(self) -> &'static str {
        match self {
            Self::It => "it",
            Self::De => "de",
            Self::En => "en",
        }
    }

    /// The language of a word; `None`: not one of ours.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.word() == word)
    }
}
