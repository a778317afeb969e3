//! How values become columns and columns values.

use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Error, Hash};

pub(super) fn text(row: &AnyRow, column: &str) -> Result<String, Error> {
    Ok(row.try_get(column)?)
}

pub(super) fn maybe_text(row: &AnyRow, column: &str) -> Result<Option<String>, Error> {
    Ok(row.try_get(column)?)
}

pub(super) fn blob(row: &AnyRow, column: &str) -> Result<Vec<u8>, Error> {
    Ok(row.try_get(column)?)
}

pub(super) fn hash(row: &AnyRow, column: &str) -> Result<Hash, Error> {
    hash_of(blob(row, column)?)
}

pub(super) fn maybe_hash(row: &AnyRow, column: &str) -> Result<Option<Hash>, Error> {
    row.try_get::<Option<Vec<u8>>, _>(column)?.map(hash_of).transpose()
}

fn hash_of(stored: Vec<u8>) -> Result<Hash, Error> {
    stored.try_into().map(Hash::from_bytes).map_err(|_| Error::Corrupt("hash"))
}

pub(super) fn count(row: &AnyRow, column: &str) -> Result<u64, Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| Error::Corrupt("number"))
}

pub(super) fn integer(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Corrupt("number"))
}

pub(super) fn time(row: &AnyRow, column: &str) -> Result<Timestamp, Error> {
    millis(row.try_get(column)?)
}

pub(super) fn maybe_time(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, Error> {
    row.try_get::<Option<i64>, _>(column)?.map(millis).transpose()
}

fn millis(stored: i64) -> Result<Timestamp, Error> {
    Timestamp::from_millisecond(stored).map_err(|_| Error::Corrupt("time"))
}

pub(super) fn parse<T: FromStr>(row: &AnyRow, column: &str, what: &'static str) -> Result<T, Error> {
    text(row, column)?.parse().map_err(|_| Error::Corrupt(what))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Corrupt("value"))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &AnyRow, column: &str, what: &'static str) -> Result<T, Error> {
    serde_json::from_str(&text(row, column)?).map_err(|_| Error::Corrupt(what))
}

/// The one-word name that serde gives a variant: the same as in the API.
pub(super) fn word<T: Serialize>(value: T) -> Result<String, Error> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(Error::Corrupt("word")),
    }
}

pub(super) fn from_word<T: DeserializeOwned>(row: &AnyRow, column: &str, what: &'static str) -> Result<T, Error> {
    word_of(text(row, column)?, what)
}

pub(super) fn maybe_word<T: DeserializeOwned>(
    row: &AnyRow,
    column: &str,
    what: &'static str,
) -> Result<Option<T>, Error> {
    maybe_text(row, column)?.map(|word| word_of(word, what)).transpose()
}

fn word_of<T: DeserializeOwned>(word: String, what: &'static str) -> Result<T, Error> {
    serde_json::from_value(serde_json::Value::String(word)).map_err(|_| Error::Corrupt(what))
}
