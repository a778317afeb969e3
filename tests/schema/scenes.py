"""What each operation needs to be accepted: path, key, and what in its body must name something that exists."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Callable
from uuid import uuid4

from world import FRAGMENT, World, a_document, offer


@dataclass
class Scene:
    """What is put into a request. `body` changes the generated body, or is one."""

    path: dict[str, str] = field(default_factory=dict)
    #: The room's entity tag.
    revision: str = '"1"'
    bearer: str | None = None
    #: The token of an access to the room's recordings.
    access: str | None = None
    body: Callable[[Any], Any] | None = None


def key(scope):
    return lambda world: Scene(bearer=world.keys[scope])


def room(scope, state, body=None):
    def scene(world):
        found = getattr(world, state)()
        return Scene({"room": found.id}, found.revision(), world.keys[scope], body=body and body(world, found))

    return scene


def person(scope, state, role, body=None):
    def scene(world):
        found = getattr(world, state)()
        path = {"room": found.id, "participant": found.people[role]["id"]}
        return Scene(path, found.revision(), world.keys[scope], body=body and body(world, found))

    return scene


def session(state, role="delegato", body=None):
    def scene(world):
        found = getattr(world, state)()
        path = {"connection": found.connection or ""}
        return Scene(path, bearer=found.sessions[role], body=body and body(world, found))

    return scene


def link(body=None):
    def scene(world):
        found = world.booked()
        return Scene({"token": found.people["delegato"]["join_token"]}, body=body and body(found))

    return scene


def instead(**fields):
    """The generated body with these fields."""
    return lambda body: {**(body if isinstance(body, dict) else {}), **fields}


def bookable(world, body):
    """The generated booking with a time and people that a room can have."""
    sensible = world.booking()
    generated = body if isinstance(body, dict) else {}
    return {**sensible, **generated, **{name: sensible[name] for name in ("profile", "start", "end", "participants")}}


def consent_in_force(world, found):
    version = world.ask("GET", "/v1/session", found.sessions["delegato"])["consent_text_version"]
    return instead(text_version=version)


def paper(state, scope=None, body=None, **path):
    """A room in which documents and messages go to and fro: asked by its delegato, or with a key."""

    def scene(world):
        found = getattr(world, state)()
        bearer = world.keys[scope] if scope else found.sessions["delegato"]
        names = {"room": found.id, "document": found.document or "", **path}
        return Scene(names, found.revision(), bearer, body=body)

    return scene


def webhook(world):
    return Scene({"webhook": world.webhook()}, bearer=world.keys["booking"])


def recording(state="sealed", body=None, **path):
    """A recorded room, and an access to it."""

    def scene(world):
        found = getattr(world, state)()
        names = {"room": found.id, **path}
        if state == "exported":
            names["job"] = found.job
        return Scene(names, bearer=world.keys["compliance"], access=world.access(found), body=body)

    return scene


def job(world):
    found = world.sealed()
    headers = {"Sportello-Access": world.access(found)}
    queued = world.ask("POST", f"/v1/recordings/{found.id}/verify", world.keys["compliance"], headers)
    return Scene({"job": queued["id"]}, bearer=world.keys["compliance"])


SCENES: dict[str, Callable[[World], Scene]] = {
    "health": lambda world: Scene(),
    "show_metrics": key("metrics"),
    "welcome": link(),
    "enter_code": link(lambda found: lambda _: {"code": found.people["delegato"]["code"]}),
    "create_room": lambda world: Scene(bearer=world.keys["booking"], body=lambda body: bookable(world, body)),
    "show_room": room("booking", "booked"),
    "cancel_room": room("booking", "waiting"),
    "show_ledger": room("compliance", "booked"),
    "reissue_code": person("booking", "booked", "delegato"),
    "open": room("operator", "waiting"),
    "admit": person("operator", "opened", "delegante"),
    "send_back": person("operator", "met", "delegato"),
    "remove": person("operator", "met", "delegato"),
    "attest": person(
        "operator", "met", "delegante", lambda _, found: instead(beside=found.people["delegato"]["id"])
    ),
    "withdraw_attestation": person("operator", "met", "delegante"),
    "switch_feature": room("operator", "opened", lambda *_: instead(on=True)),
    "conclude": room("operator", "opened", lambda *_: instead(outcome="incomplete")),
    "show_session": session("waiting"),
    "consent": session("waiting", body=consent_in_force),
    "enter": session("waiting"),
    "leave": session("waiting"),
    "follow": session("waiting"),
    "connect": session("met", body=lambda *_: lambda _: offer()),
    "disconnect": session("connected"),
    "restart_ice": session("connected", body=lambda *_: lambda _: FRAGMENT),
    "describe_endpoint": lambda world: Scene(),
    "describe_connection": session("connected"),
    # Booking systems.
    "list_slots": key("booking"),
    "list_rooms": key("booking"),
    "reschedule_room": room("booking", "booked", lambda world, _: instead(**world.times(timedelta(hours=1)))),
    "replace_participant": person(
        "booking", "booked", "delegante", lambda *_: lambda _: {"role": "delegante", "name": "Un'altra"}
    ),
    "extend": room("operator", "extended", lambda *_: instead(hours=2)),
    "list_webhooks": key("booking"),
    "show_webhook": webhook,
    "replay_webhook": webhook,
    # Documents, messages, the operator's day.
    "hand_in": lambda world: paper(
        "exchanging", body=lambda _: {"conforms": "true", "file": a_document(uuid4())}
    )(world),
    "read_document": paper("exchanging"),
    "delete_document": paper("exchanging"),
    "read_receipt": paper("registered"),
    "read_chat": paper("exchanging"),
    "write_message": paper("exchanging", body=instead(text="Buongiorno")),
    "list_documents": paper("exchanging", "operator"),
    "read_room_document": paper("exchanging", "operator"),
    "read_room_receipt": paper("registered", "operator"),
    "register_document": paper("exchanging", "operator", body=instead(subject="Delega")),
    "tick_step": paper("exchanging", "operator", body=instead(done=True), step="will"),
    "list_day": key("operator"),
    "take_seat": room("operator", "waiting"),
    "read_register_day": lambda world: Scene({"date": "2026-01-13"}, bearer=world.keys["operator"]),
    # Compliance.
    "search_recordings": lambda world: Scene(
        bearer=world.keys["compliance"], body=lambda _: {"reason": "Prova", "office": "Roma", "limit": 2}
    ),
    "open_access": recording(body=instead(reason="Prova")),
    "list_accesses": recording(),
    "show_recorded_ledger": recording(),
    "list_originals": recording(),
    "read_manifest": recording(),
    "read_signature": recording(),
    "read_package": recording(),
    "read_original": recording(file="delegato-1.webm"),
    "read_session_copy": recording(),
    "place_hold": recording(body=instead(reason="Prova")),
    "lift_hold": recording("held"),
    "set_retention": recording(body=instead(until=None, reason="Prova")),
    "destroy_recording": recording("due", body=instead(reason="Prova")),
    "verify_recording": recording(),
    "export_recording": recording(body=instead(format="webm")),
    "read_export": recording("exported"),
    "show_job": job,
    "show_signing_key": lambda world: Scene(),
}


def of(operation_id, world):
    """Everything that the operation needs, made anew."""
    return SCENES[operation_id](world)
