"""Loaded by schemathesis: gives each generated request the names and the key that it needs, and notes what came back."""

import json
import os

import schemathesis
from schemathesis.core.parameters import ParameterLocation

import scenes
from world import World

WORLD = World(os.environ["SCHEMA_URL"], json.loads(os.environ["SCHEMA_KEYS"]), os.environ["SCHEMA_DATA"])
SEEN = open(os.environ["SCHEMA_SEEN"], "a", encoding="utf-8", buffering=1)
#: Stands for the session that a request will be given: each needs one of its own.
A_SESSION = "a session"


def operation_id(operation):
    return operation.definition.raw["operationId"]


@schemathesis.auth(refresh_interval=None)
class Bearer:
    """The key that the document names first."""

    def get(self, case, context):
        for requirement in context.operation.definition.raw.get("security", []):
            for scheme in requirement:
                return A_SESSION if scheme == "session" else WORLD.keys[scheme.split()[0]]
        return None

    def set(self, case, data, context):
        if data is not None:
            case.headers["Authorization"] = f"Bearer {data}"


for media_type in ("application/sdp", "application/trickle-ice-sdpfrag"):

    @schemathesis.serializer(media_type)
    def as_it_is(ctx, value):
        return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None:
        return
    scene = scenes.of(operation_id(case.operation), WORLD)
    if case.headers.get("Authorization") == f"Bearer {A_SESSION}":
        case.headers["Authorization"] = f"Bearer {scene.bearer}"
    if not case.meta.is_negative_at(ParameterLocation.PATH):
        for parameter in case.path_parameters:
            case.path_parameters[parameter] = scene.path.get(parameter, case.path_parameters[parameter])
    if "If-Match" in case.headers:
        # Any other text is a revision that is over; test_document.py sends one.
        case.headers["If-Match"] = scene.revision
    if scene.access is not None and (case.meta.generation.mode.is_positive or "Sportello-Access" in case.headers):
        case.headers["Sportello-Access"] = scene.access
    is_wrong = not case.meta.generation.mode.is_positive or case.meta.is_negative_at(ParameterLocation.BODY)
    if scene.body is not None and not is_wrong:
        case.body = scene.body(case.body)


@schemathesis.hook
def after_call(context, case, response):
    if case.method.upper() == case.operation.method.upper():
        SEEN.write(f"{operation_id(case.operation)} {response.status_code}\n")
