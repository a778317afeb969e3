//! JSON in its one canonical form (RFC 8785), for the values that a manifest is made of: strings, booleans, nulls, lists,
//! objects, and integers that every reader holds exactly. Same content, same bytes: what is signed is also what is read.

use serde::Serialize;
use serde_json::{Number, Value};

/// Largest integer that a JSON reader with double precision holds exactly (RFC 8785 §3.2.2.3, RFC 7493 §2.2).
pub const LARGEST_INTEGER: u64 = (1 << 53) - 1;

/// Why a value has no canonical form here.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// It is no JSON at all.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A fraction: its digits depend on who writes them.
    #[error("{0} is no whole number")]
    Fraction(Number),
    /// Not every reader keeps all of its digits.
    #[error("{0} is beyond what JSON readers hold exactly; write it as a string")]
    TooLarge(Number),
}

/// The canonical bytes of a value.
///
/// # Errors
/// The value holds a fraction or an integer beyond ±[`LARGEST_INTEGER`].
pub fn canonical<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let mut bytes = Vec::new();
    write(&serde_json::to_value(value)?, &mut bytes)?;
    Ok(bytes)
}

fn write(value: &Value, into: &mut Vec<u8>) -> Result<(), CanonicalError> {
    match value {
        Value::Number(number) => write_number(number, into)?,
        Value::Array(items) => {
            into.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    into.push(b',');
                }
                write(item, into)?;
            }
            into.push(b']');
        }
        Value::Object(map) => {
            // RFC 8785 §3.2.3 sorts by UTF-16 code units, which differs from UTF-8's order beyond the basic plane.
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            into.push(b'{');
            for (n, (key, item)) in keys.into_iter().enumerate() {
                if n > 0 {
                    into.push(b',');
                }
                serde_json::to_writer(&mut *into, key)?;
                into.push(b':');
                write(item, into)?;
            }
            into.push(b'}');
        }
        // serde_json escapes exactly what RFC 8785 §3.2.2.2 does, in the same way.
        Value::Null | Value::Bool(_) | Value::String(_) => serde_json::to_writer(into, value)?,
    }
    Ok(())
}

fn write_number(number: &Number, into: &mut Vec<u8>) -> Result<(), CanonicalError> {
    let magnitude = match (number.as_u64(), number.as_i64()) {
        (Some(magnitude), _) => magnitude,
        (None, Some(negative)) => negative.unsigned_abs(),
        (None, None) => return Err(CanonicalError::Fraction(number.clone())),
    };
    if magnitude > LARGEST_INTEGER {
        return Err(CanonicalError::TooLarge(number.clone()));
    }
    into.extend(number.to_string().bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_as_rfc_8785_shows() {
        // RFC 8785 §3.2.3: the example of sorted properties.
        let value = json!({"\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis"});
        let text = String::from_utf8(canonical(&value).unwrap()).unwrap();
        assert_eq!(
            text,
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\
             \"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
        );
    }

    #[test]
    fn strings_are_escaped_as_rfc_8785_shows() {
        // RFC 8785 §3.2.2: the example's string and literals.
        let value = json!({"string": "\u{20ac}$\u{f}\nA'B\"\\\\\"/", "literals": [null, true, false]});
        let text = String::from_utf8(canonical(&value).unwrap()).unwrap();
        assert_eq!(text, r#"{"literals":[null,true,false],"string":"€$\u000f\nA'B\"\\\\\"/"}"#);
    }

    #[test]
    fn numbers_that_readers_may_disagree_on_are_refused() {
        assert!(matches!(canonical(&1.5), Err(CanonicalError::Fraction(_))));
        assert!(matches!(canonical(&1.0), Err(CanonicalError::Fraction(_))));
        assert!(matches!(canonical(&(LARGEST_INTEGER + 1)), Err(CanonicalError::TooLarge(_))));
        assert!(matches!(canonical(&i64::MIN), Err(CanonicalError::TooLarge(_))));
        assert_eq!(canonical(&LARGEST_INTEGER).unwrap(), b"9007199254740991");
        assert_eq!(canonical(&-9_007_199_254_740_991_i64).unwrap(), b"-9007199254740991");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_and_written_the_same(
            map in proptest::collection::btree_map(".*", (".*", 0..=LARGEST_INTEGER, any::<bool>()), 0..8)
        ) {
            let bytes = canonical(&map).unwrap();
            let read: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&read, &serde_json::to_value(&map).unwrap());
            prop_assert_eq!(canonical(&read).unwrap(), bytes);
        }
    }
}
