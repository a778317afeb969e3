"""Holds the API's document against the running server: schemathesis tries what the document allows and what it does
not, with every check that it has; then each status that the document names must have been seen."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import unittest
import uuid

import requests
import schemathesis

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]

import scenes  # noqa: E402
from server import ARTEFACTS, Server  # noqa: E402
from test_webhooks import SECRET, Receiver  # noqa: E402
from world import World, offer  # noqa: E402

#: Statuses that no request of this test can bring about, and where else they are seen.
ELSEWHERE = {
    ("follow", "101"): "a WebSocket; tests/integration follows sessions",
    ("create_room", "507"): "needs a full disk; tests/integration/disks.rs fills one",
    ("open", "507"): "needs a full disk; tests/integration/disks.rs fills one",
    ("hand_in", "200"): "needs the same document twice; tests/integration/documents.rs sends it",
    ("attest", "204"): "needs a device that sends; tests/integration/day.rs attests",
}
#: All requests come from one address, and many of them are wrong on purpose.
NO_LIMITS = {
    f"HTTP__{limit}": "1000000" for limit in ("JOIN_PER_MINUTE", "JOIN_BURST", "WRONG_TOKENS_PER_MINUTE")
}
#: Hundreds of meetings are opened at the same time, which no disk has space for.
NO_SPACE = {"RECORDING__RESERVE_BYTES_PER_SECOND": "1000", "RECORDING__RESERVE_FLOOR_MB": "0"}
#: Longer than any body that is read, but documents.
TOO_LARGE = 200_000
TOO_LARGE_A_DOCUMENT = 4 << 20
MULTIPART = "multipart/form-data"


class Document(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        receiver = Receiver()
        cls.addClassCleanup(receiver.server_close)
        cls.addClassCleanup(receiver.shutdown)
        cls.server = Server(WEBHOOKS__URL=receiver.url, WEBHOOKS__SECRETS=SECRET, **NO_LIMITS, **NO_SPACE)
        cls.addClassCleanup(cls.server.stop)
        asyncio.run(cls.server.ready())
        cls.world = World(cls.server.url, cls.server.keys, cls.server.data.name)
        cls.schema = schemathesis.openapi.from_url(f"{cls.server.url}/v1/openapi.json")
        cls.operations = [result.ok() for result in cls.schema.get_all_operations()]
        cls.seen_in = ARTEFACTS.parent / "schema" / "seen.txt"
        cls.seen_in.parent.mkdir(parents=True, exist_ok=True)
        cls.seen_in.write_text("")

    def test_1_generated_requests_pass_every_check(self):
        environment = {
            **os.environ,
            "PYTHONPATH": f"{HERE}",
            "SCHEMA_URL": self.server.url,
            "SCHEMA_KEYS": json.dumps(self.server.keys),
            "SCHEMA_DATA": self.server.data.name,
            "SCHEMA_SEEN": str(self.seen_in),
        }
        command = ["--config-file", HERE / "schemathesis.toml", "run", f"{self.server.url}/v1/openapi.json"]
        command = [pathlib.Path(sys.executable).parent / "schemathesis", *command, "--checks", "all"]
        ran = subprocess.run(command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        (self.seen_in.parent / "schemathesis.log").write_text(ran.stdout)
        self.assertEqual(ran.returncode, 0, ran.stdout)
        print(ran.stdout[ran.stdout.index("SUMMARY") :])

    def test_2_what_is_wrong_with_a_request_is_said_as_documented(self):
        """What the generator does not try: keys of others, other content types, too much, revisions that are over."""
        for operation in self.operations:
            documented = operation.definition.raw["responses"]
            for status, request in self.wrong_requests(operation):
                if status in documented:
                    with self.subTest(operation=operation.label, status=status):
                        response = self.send(operation, **request)
                        self.assertEqual(str(response.status_code), status, response.text)
                        operation.validate_response(response)

    def test_3_what_does_not_fit_the_rooms_state_is_a_conflict(self):
        for operation in self.operations:
            if "409" in operation.definition.raw["responses"] and "{room}" in operation.path:
                with self.subTest(operation=operation.label):
                    # A room that is cancelled may be cancelled again, and one that is over be cancelled no more.
                    rooms = self.world.cancelled(), self.world.extended()
                    paths = [{"room": room.id, "participant": room.people["delegante"]["id"]} for room in rooms]
                    responses = [self.send(operation, path={**path, "feature": "chat"}) for path in paths]
                    self.assertIn(409, [response.status_code for response in responses])
                    for response in responses:
                        operation.validate_response(response)

    def test_3_people_are_told_what_comes_first(self):
        """Wrong codes, other devices, and steps that come before others, as one person meets them."""
        room = self.world.booked()
        delegato = room.people["delegato"]
        code, path = delegato["code"], {"token": delegato["join_token"]}
        wrong = "000000" if code != "000000" else "000001"
        self.refused("enter_code", 403, path=path, json={"code": wrong})
        room.admitted("delegato")
        session = room.sessions["delegato"]
        self.refused("enter_code", 409, path=path, json={"code": code})
        self.refused("consent", 409, session, json={"text_version": "another"})
        self.refused("enter", 409, session)
        room.waits_on("delegato")
        self.refused("connect", 409, session, data=offer(), content_type="application/sdp")
        self.refused("hand_in", 409, session)
        self.refused("write_message", 409, session, json={"text": "Buongiorno"})

    def test_3_films_are_read_in_ranges(self):
        for name in ("read_original", "read_session_copy"):
            operation = self.operation(name)
            for asked, status in (("bytes=0-3", 206), ("bytes=-5", 206), ("bytes=9999-", 416), ("lines=1-2", 200)):
                with self.subTest(operation=operation.label, range=asked):
                    response = self.send(operation, headers={"Range": asked})
                    self.assertEqual(response.status_code, status, response.text)
                    operation.validate_response(response)

    def refused(self, name, status, bearer=None, path=None, **body):
        operation = self.operation(name)
        if "json" in body:
            body = {"data": json.dumps(body["json"]), "content_type": "application/json"}
        response = self.send(operation, bearer=bearer, path=path, **body)
        self.assertEqual(response.status_code, status, response.text)
        operation.validate_response(response)

    def test_4_whoever_asks_too_much_is_told_so(self):
        server = Server(ROOMS__CAPACITY="1", **dict.fromkeys(NO_LIMITS, "1"))
        self.addCleanup(server.stop)
        asyncio.run(server.ready())
        World(server.url, server.keys, server.data.name).booked()
        full = self.send(self.operation("create_room"), bearer=server.keys["booking"], url=server.url)
        self.assertEqual(full.status_code, 409, full.text)
        self.operation("create_room").validate_response(full)
        for _ in range(2):
            requests.get(f"{server.url}/v1/session", headers={"Authorization": "Bearer wrong"}, timeout=20)
            requests.get(f"{server.url}/v1/join/unknown", timeout=20)
        for operation in self.operations:
            if "429" in operation.definition.raw["responses"]:
                with self.subTest(operation=operation.label):
                    response = self.send(operation, bearer="wrong", url=server.url)
                    self.assertEqual(response.status_code, 429, response.text)
                    operation.validate_response(response)

    def test_5_every_documented_status_was_seen(self):
        seen = {tuple(line.split()) for line in self.seen_in.read_text().splitlines()}
        missing = []
        for operation in self.operations:
            name = operation.definition.raw["operationId"]
            statuses = {status for operation_id, status in seen if operation_id == name}
            self.assertTrue(statuses, f"{operation.label} was never asked")
            for status in operation.definition.raw["responses"]:
                if status not in statuses and status != "default" and (name, status) not in ELSEWHERE:
                    missing.append(f"{operation.label}: {status}")
        self.assertEqual(missing, [], "documented, and never seen")

    def operation(self, name):
        return next(each for each in self.operations if each.definition.raw["operationId"] == name)

    def wrong_requests(self, operation):
        """Pairs of a status and the request that asks for it."""
        raw = operation.definition.raw
        schemes = {scheme.split()[0] for requirement in raw.get("security", []) for scheme in requirement}
        others = [scope for scope in self.server.keys if scope not in schemes]
        yield "401", {"bearer": "not-a-key"}
        if schemes and others:
            yield "403", {"bearer": self.server.keys[others[0]]}
        # Without a key nobody is told what exists: only what cannot be a name is refused.
        yield "404", {"path": {} if schemes else {name.name: "none" for name in operation.path_parameters}}
        if any(parameter["in"] == "query" for parameter in raw.get("parameters", [])):
            yield "422", {"query": "?no_such_parameter=1"}
        yield "412", {"headers": {"If-Match": '"999999"'}}
        for content_type in raw.get("requestBody", {}).get("content", {}):
            is_json = content_type == "application/json"
            too_large = TOO_LARGE
            if content_type == MULTIPART:
                content_type, too_large = f"{MULTIPART}; boundary=x", TOO_LARGE_A_DOCUMENT
            yield "400", {"data": '{"' if is_json else b"\xff", "content_type": content_type}
            filler = json.dumps({"x": "y" * too_large}) if is_json else "y" * too_large
            yield "413", {"data": filler, "content_type": content_type}
            yield "415", {"data": "hello", "content_type": "text/plain"}
            if is_json:
                yield "422", {"data": '{"no such field": 1}', "content_type": content_type}

    def send(self, operation, bearer=None, path=None, headers=None, data=None, content_type=None, url=None, query=""):
        name = operation.definition.raw["operationId"]
        scene = scenes.of(name, self.world)
        path = scene.path if path is None else path
        address = operation.path
        for parameter in operation.path_parameters:
            address = address.replace(f"{{{parameter.name}}}", path.get(parameter.name) or self.unknown(parameter.name))
        headers = dict(headers or {})
        if scene.access:
            headers["Sportello-Access"] = scene.access
        if bearer or scene.bearer:
            headers["Authorization"] = f"Bearer {bearer or scene.bearer}"
        if content_type:
            headers["Content-Type"] = content_type
        elif scene.body is not None and MULTIPART in operation.definition.raw["requestBody"]["content"]:
            body = scene.body({})
            form = {"conforms": (None, body["conforms"]), "file": ("carta.pdf", body["file"])}
            prepared = requests.Request("POST", self.server.url, files=form).prepare()
            headers["Content-Type"], data = prepared.headers["Content-Type"], prepared.body
        elif scene.body is not None:
            body = scene.body({})
            is_text = isinstance(body, str)
            headers["Content-Type"] = next(iter(operation.definition.raw["requestBody"]["content"]))
            data = body if is_text else json.dumps(body)
        address = (url or self.server.url) + address + query
        response = requests.request(operation.method, address, headers=headers, data=data, timeout=20)
        with self.seen_in.open("a") as seen:
            seen.write(f"{name} {response.status_code}\n")
        return response

    @staticmethod
    def unknown(parameter):
        return {"feature": "chat", "token": "A" * 22}.get(parameter) or str(uuid.uuid4())


if __name__ == "__main__":
    unittest.main()
