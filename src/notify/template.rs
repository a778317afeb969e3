//! The request's body as the configuration writes it, with places for what changes.
//!
//! The places are filled structurally: in JSON a filled string is still one string, in a form a filled value is still
//! one value, whatever the text holds.

use std::fmt;

use serde_json::{Map, Value};

/// How a template is written and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`: places stand inside strings.
    Json,
    /// `application/x-www-form-urlencoded`: places stand inside values.
    Form,
}

impl ContentType {
    /// Every content type.
    pub const ALL: [Self; 2] = [Self::Json, Self::Form];

    /// Its name, as in the header and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }

    /// The content type of a name; `None`: not one of ours.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A body with the places `{phone}`, `{text}` and `{id}`.
#[derive(Clone, PartialEq)]
pub struct Template(Shape);

/// Why a text is no template. The configuration's fault; says nothing of the text itself, which may hold passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// Not JSON, though it is to be sent as JSON.
    #[error("it is not JSON")]
    NotJson,
    /// A place of another name, or a brace on its own.
    #[error("places are {{phone}}, {{text}} and {{id}}; a brace itself is written twice")]
    UnknownPlace,
    /// A place in the name of a JSON member.
    #[error("in JSON, places stand in strings, not in the names of members")]
    PlaceInName,
    /// The number or the text would never be sent.
    #[error("both {{phone}} and {{text}} must stand in it")]
    PlaceMissing,
}

/// What fills the places.
#[derive(Clone, Copy)]
pub(super) struct Filling<'a> {
    pub(super) phone: &'a str,
    pub(super) text: &'a str,
    pub(super) id: &'a str,
}

#[derive(Clone, PartialEq)]
enum Shape {
    Json(Node),
    Form(Vec<Part>),
}

/// A JSON value whose strings have places.
#[derive(Clone, PartialEq)]
enum Node {
    Fixed(Value),
    Text(Vec<Part>),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

#[derive(Clone, PartialEq)]
enum Part {
    Fixed(String),
    Place(Place),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Phone,
    Text,
    Id,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`BadTemplate`].
    pub fn parse(kind: ContentType, text: &str) -> Result<Self, BadTemplate> {
        let mut found = Vec::new();
        let shape = match kind {
            ContentType::Json => {
                let value = serde_json::from_str(text).map_err(|_| BadTemplate::NotJson)?;
                Shape::Json(node(value, &mut found)?)
            }
            ContentType::Form => Shape::Form(parts(text, &mut found)?),
        };
        if found.contains(&Place::Phone) && found.contains(&Place::Text) {
            Ok(Self(shape))
        } else {
            Err(BadTemplate::PlaceMissing)
        }
    }

    /// What is sent it as.
    pub fn content_type(&self) -> ContentType {
        match self.0 {
            Shape::Json(_) => ContentType::Json,
            Shape::Form(_) => ContentType::Form,
        }
    }

    /// The body, filled.
    pub(super) fn fill(&self, filling: Filling<'_>) -> String {
        match &self.0 {
            Shape::Json(node) => filled_node(node, filling).to_string(),
            // What stands between the places is the configuration's, encoded already.
            Shape::Form(parts) => filled(parts, filling, form_encoded),
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({}, …)", self.content_type().name())
    }
}

fn node(value: Value, found: &mut Vec<Place>) -> Result<Node, BadTemplate> {
    Ok(match value {
        Value::String(text) => Node::Text(parts(&text, found)?),
        Value::Array(items) => Node::List(items.into_iter().map(|item| node(item, found)).collect::<Result<_, _>>()?),
        Value::Object(members) => {
            let member = |(name, value): (String, Value)| {
                if parts(&name, &mut Vec::new())?.iter().any(|part| matches!(part, Part::Place(_))) {
                    return Err(BadTemplate::PlaceInName);
                }
                Ok((name, node(value, found)?))
            };
            Node::Object(members.into_iter().map(member).collect::<Result<_, _>>()?)
        }
        fixed => Node::Fixed(fixed),
    })
}

/// Splits a text at its places, in one pass: what fills a place is never read as a template again.
fn parts(text: &str, found: &mut Vec<Place>) -> Result<Vec<Part>, BadTemplate> {
    let (mut parts, mut fixed, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        fixed.push_str(before);
        if let Some(after) = from.strip_prefix("{{") {
            fixed.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            fixed.push('}');
            rest = after;
        } else {
            let (place, after) = place(from).ok_or(BadTemplate::UnknownPlace)?;
            parts.push(Part::Fixed(std::mem::take(&mut fixed)));
            parts.push(Part::Place(place));
            found.push(place);
            rest = after;
        }
    }
    fixed.push_str(rest);
    parts.push(Part::Fixed(fixed));
    Ok(parts)
}

fn place(text: &str) -> Option<(Place, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let place = match name {
        "phone" => Place::Phone,
        "text" => Place::Text,
        "id" => Place::Id,
        _ => return None,
    };
    Some((place, after))
}

fn filled_node(node: &Node, filling: Filling<'_>) -> Value {
    match node {
        Node::Fixed(value) => value.clone(),
        Node::Text(parts) => Value::String(filled(parts, filling, str::to_owned)),
        Node::List(items) => Value::Array(items.iter().map(|item| filled_node(item, filling)).collect()),
        Node::Object(members) => {
            let filled = members.iter().map(|(name, value)| (name.clone(), filled_node(value, filling)));
            Value::Object(filled.collect::<Map<_, _>>())
        }
    }
}

fn filled(parts: &[Part], filling: Filling<'_>, encoded: impl Fn(&str) -> String) -> String {
    let written = |part: &Part| match part {
        Part::Fixed(text) => text.clone(),
        Part::Place(Place::Phone) => encoded(filling.phone),
        Part::Place(Place::Text) => encoded(filling.text),
        Part::Place(Place::Id) => encoded(filling.id),
    };
    parts.iter().map(written).collect()
}

/// A value as forms write it (WHATWG URL §5.2, serializing).
fn form_encoded(value: &str) -> String {
    use fmt::Write as _;

    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            // Writing to a string does not fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILLING: Filling<'static> =
        Filling { phone: "+393331234567", text: "«è» \"a\\b\" & {id}\n=1", id: "0199-7" };

    fn json(text: &str) -> Result<Template, BadTemplate> {
        Template::parse(ContentType::Json, text)
    }

    fn form(text: &str) -> Result<Template, BadTemplate> {
        Template::parse(ContentType::Form, text)
    }

    #[test]
    fn json_places_stay_inside_their_strings_whatever_fills_them() {
        let template =
            json(r#"{"to": ["{phone}"], "message": {"body": "Sportello: {text}"}, "n": 1, "ref": "{{{id}}}"}"#);
        let sent: Value = serde_json::from_str(&template.unwrap().fill(FILLING)).unwrap();
        let expected = serde_json::json!({
            "to": ["+393331234567"],
            "message": {"body": "Sportello: «è» \"a\\b\" & {id}\n=1"},
            "n": 1,
            "ref": "{0199-7}",
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn form_values_are_encoded_and_what_is_around_them_is_not() {
        let sent = form("user=me&to={phone}&text={text}&ref={id}").unwrap().fill(FILLING);
        assert_eq!(
            sent,
            "user=me&to=%2B393331234567&text=%C2%AB%C3%A8%C2%BB+%22a%5Cb%22+%26+%7Bid%7D%0A%3D1&ref=0199-7"
        );
    }

    #[test]
    fn what_no_gateway_could_use_is_refused_by_what_is_wrong_with_it() {
        assert_eq!(json("to={phone}").unwrap_err(), BadTemplate::NotJson);
        assert_eq!(json(r#"{"to": "{phone}", "text": "{message}"}"#).unwrap_err(), BadTemplate::UnknownPlace);
        assert_eq!(json(r#"{"{phone}": "{text}"}"#).unwrap_err(), BadTemplate::PlaceInName);
        assert_eq!(json(r#"{"to": "{phone}"}"#).unwrap_err(), BadTemplate::PlaceMissing);
        assert_eq!(form("text={text}").unwrap_err(), BadTemplate::PlaceMissing);
        for stray in ["to={phone}&text={text}}", "to={phone}&text={text", "to={phone}&text={text}&x={}"] {
            assert_eq!(form(stray).unwrap_err(), BadTemplate::UnknownPlace, "{stray}");
        }
    }

    #[test]
    fn a_template_is_never_printed() {
        let template = form("password=hunter2&to={phone}&text={text}").unwrap();
        assert_eq!(format!("{template:?}"), "Template(application/x-www-form-urlencoded, …)");
    }
}
