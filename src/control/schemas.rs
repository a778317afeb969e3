//! Members of any form, as the API's document shows them.

use serde_json::{Value, json};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// A ledger line's event.
pub(super) fn event() -> Object {
    object_with(
        "What happened: an object with a `type` and that type's fields. Fields whose names end in `_ms` are milliseconds, \
         those in `_hours` hours; times are RFC 3339.",
        json!({"type": "code_rejected", "participant": "0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11", "attempts_left": 4}),
    )
}

/// A webhook's body.
pub(super) fn payload() -> Object {
    object_with(
        "The body, as it is sent: see the schema `Webhook`.",
        json!({
            "type": "room.opened",
            "timestamp": "2026-01-13T09:00:12Z",
            "data": {
                "room_id": "0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11",
                "reference": "PRN-2026-000123",
                "profile": "delega",
                "phase": "waiting",
                "ledger": {
                    "seq": 7,
                    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                },
            },
        }),
    )
}

/// `utoipa` loses the attribute `example` on objects of any form.
fn object_with(description: &str, example: Value) -> Object {
    ObjectBuilder::new().schema_type(Type::Object).description(Some(description)).examples([example]).build()
}
