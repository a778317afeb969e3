"""Rooms in the state that an operation needs, made over the API itself."""

import itertools
import pathlib
import sqlite3
import uuid
from contextlib import closing
from datetime import datetime, timedelta, timezone
from time import sleep

import requests

ROLES = ("operator", "delegato", "delegante")
#: What a browser's microphone, camera and two slots are in an offer: kind, payload type, codec, direction.
LINES = (
    ("audio", 111, "opus/48000/2", "sendonly"),
    ("video", 96, "VP8/90000", "sendonly"),
    ("audio", 111, "opus/48000/2", "recvonly"),
    ("video", 96, "VP8/90000", "recvonly"),
)


def offer():
    lines = ["v=0", "o=- 4611731400430051336 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1 2 3"]
    for mid, (kind, payload, codec, direction) in enumerate(LINES):
        lines += [
            f"m={kind} 9 UDP/TLS/RTP/SAVPF {payload}",
            "c=IN IP4 0.0.0.0",
            "a=ice-ufrag:Ab1z",
            "a=ice-pwd:0123456789abcdefghijklmn",
            "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
            "a=setup:actpass",
            f"a=mid:{mid}",
            f"a={direction}",
            "a=rtcp-mux",
            f"a=rtpmap:{payload} {codec}",
        ]
        if direction == "sendonly":
            lines += [f"a=msid:- track{mid}", f"a=ssrc:{1000 + mid} cname:x"]
    return "\r\n".join([*lines, ""])


#: New ICE credentials (RFC 8840).
FRAGMENT = "a=ice-ufrag:Cd2y\r\na=ice-pwd:abcdefghijklmn0123456789\r\n"


def a_document(words):
    """A PDF of one empty page, other than every other."""
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>",
    )
    text, places = f"%PDF-1.7\n% {words}\n".encode(), []
    for number, content in enumerate(objects, 1):
        places.append(len(text))
        text += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"xref\n0 4\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return text + table + b"trailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(text)


def time(moment):
    return moment.isoformat().replace("+00:00", "Z")


class World:
    def __init__(self, url, keys, data):
        self.url = url
        self.keys = keys
        #: The server's data folder: nobody records anything here, so what was recorded is put there.
        self.data = pathlib.Path(data)
        self.http = requests.Session()
        self.number = itertools.count(1)

    def ask(self, method, path, bearer=None, headers=None, **request):
        headers = {**(headers or {}), **({"Authorization": f"Bearer {bearer}"} if bearer else {})}
        response = self.http.request(method, self.url + path, headers=headers, timeout=20, **request)
        assert response.ok, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def times(self, ahead=timedelta(0)):
        """Half an hour from now, or later."""
        start = datetime.now(timezone.utc) + ahead
        return {"start": time(start), "end": time(start + timedelta(minutes=30))}

    def booking(self):
        number = next(self.number)
        return {
            "profile": "delega",
            "office": "Roma",
            "counter": f"Sportello {number}",
            "reason": "Delega dell'identità digitale",
            **self.times(),
            "participants": [{"role": role, "name": f"Persona {number}"} for role in ROLES],
        }

    def booked(self):
        """Nobody has come yet."""
        return Room(self, self.ask("POST", "/v1/rooms", self.keys["booking"], json=self.booking()))

    def waiting(self):
        """Everyone is in the waiting room."""
        room = self.booked()
        for role in ROLES:
            room.waits(role)
        return room

    def opened(self):
        """The operator is inside, the others wait."""
        room = self.waiting()
        self.ask("POST", f"/v1/rooms/{room.id}/open", room.sessions["operator"])
        return room

    def met(self):
        """The operator and the delegato are inside, the delegante waits."""
        room = self.opened()
        person = room.people["delegato"]["id"]
        self.ask("POST", f"/v1/rooms/{room.id}/participants/{person}/admit", self.keys["operator"])
        return room

    def exchanging(self):
        """As `met`, with documents and chat; the delegato has handed one in: the room's `document`."""
        room = self.met()
        for feature in ("documents", "chat"):
            path = f"/v1/rooms/{room.id}/features/{feature}"
            self.ask("PUT", path, self.keys["operator"], json={"on": True})
        form = {"conforms": (None, "true"), "file": ("carta.pdf", a_document(room.id), "application/pdf")}
        room.document = self.ask("POST", "/v1/session/documents", room.sessions["delegato"], files=form)["id"]
        return room

    def registered(self):
        """As `exchanging`, and the document has its number."""
        room = self.exchanging()
        operator = self.keys["operator"]
        self.ask("POST", f"/v1/rooms/{room.id}/documents/{room.document}/register", operator, json={})
        for _ in range(200):
            listed = self.ask("GET", f"/v1/rooms/{room.id}/documents", operator)["documents"]
            if listed[0]["state"] == "registered":
                return room
            sleep(0.05)
        raise AssertionError("the document is not registered")

    def cancelled(self):
        """Nothing can happen in it any more."""
        room = self.booked()
        self.ask("POST", f"/v1/rooms/{room.id}/cancel", self.keys["booking"])
        return room

    def extended(self):
        """Concluded, and documents may be handed in."""
        room = self.opened()
        conclusion = {"outcome": "incomplete", "extension_hours": 1}
        self.ask("POST", f"/v1/rooms/{room.id}/conclude", self.keys["operator"], json=conclusion)
        return room

    def connected(self):
        """The delegato has a media connection; its id is the room's `connection`."""
        room = self.met()
        headers = {"Authorization": f"Bearer {room.sessions['delegato']}", "Content-Type": "application/sdp"}
        answer = self.http.post(self.url + "/v1/session/media", headers=headers, data=offer(), timeout=20)
        assert answer.status_code == 201, answer.text
        room.connection = answer.headers["Location"].rsplit("/", 1)[1]
        return room

    def sealed(self, hold=None, retain_until=None):
        """Its recordings are in a package, which nobody encrypted."""
        room = self.booked()
        package = self.data / "packages" / f"session-{room.id}"
        (package / "originals").mkdir(parents=True)
        (package / "manifest.json").write_text('{"schema":"sportello-manifest/1"}')
        (package / "manifest.jws").write_text("a.b.c")
        for film in ("session.webm", "originals/delegato-1.webm"):
            (package / film).write_bytes(b"\x1a\x45\xdf\xa3" + b"film" * 100)
        self.write(
            "INSERT INTO packages (room, state, revision, prefix, bytes, begun, ended, sealed, hold_reason, hold_by,"
            " hold_at, retain_until, attempts, due) VALUES (?, 'sealed', 1, ?, 900, 0, 1, 2, ?, ?, ?, ?, 0, 0)",
            (room.id, package.name, hold, hold and "key:somebody", hold and 3, retain_until),
        )
        return room

    def held(self):
        """A sealed room on hold."""
        return self.sealed(hold="Prova")

    def due(self):
        """A sealed room whose retention is over, at the end of the minute in which the server looks for such."""
        return self.sealed(retain_until=int(datetime.now(timezone.utc).timestamp() * 1000) - 1)

    def exported(self):
        """A sealed room with a finished export, its `job`."""
        room = self.sealed()
        room.job = str(uuid.uuid4())
        exports = self.data / "exports" / room.id
        exports.mkdir(parents=True)
        (exports / f"{room.job}.webm").write_bytes(b"film")
        now = int(datetime.now(timezone.utc).timestamp() * 1000)
        self.write(
            "INSERT INTO evidence_jobs (id, kind, room, state, attempts, progress_permille, result, asked_by, created,"
            " updated) VALUES (?, 'export_webm', ?, 'done', 1, 1000, '{}', 'key:somebody', ?, ?)",
            (room.job, room.id, now, now),
        )
        return room

    def write(self, statement, values):
        with closing(sqlite3.connect(self.data / "sportello.db", timeout=10)) as database, database:
            database.execute(statement, values)

    def access(self, room):
        """The token of an access to a room's recordings."""
        path = f"/v1/recordings/{room.id}/accesses"
        return self.ask("POST", path, self.keys["compliance"], json={"reason": "Prova"})["token"]

    def webhook(self):
        """One that was delivered."""
        self.booked()
        for _ in range(100):
            page = self.ask("GET", "/v1/webhooks?state=delivered&limit=1", self.keys["booking"])
            if page["webhooks"]:
                return page["webhooks"][0]["id"]
            sleep(0.05)
        raise AssertionError("no webhook was delivered")


class Room:
    def __init__(self, world, booked):
        self.world = world
        self.id = booked["room"]["id"]
        self.people = {person["role"]: person for person in booked["participants"]}
        self.sessions = {}
        self.document = None
        self.connection = None

    def waits(self, role):
        self.admitted(role)
        self.waits_on(role)

    def waits_on(self, role):
        """From the code on."""
        session = self.sessions[role]
        version = self.world.ask("GET", "/v1/session", session)["consent_text_version"]
        self.world.ask("POST", "/v1/session/consent", session, json={"text_version": version})
        self.world.ask("POST", "/v1/session/enter", session)

    def revision(self):
        """The entity tag of now."""
        return f'"{self.world.ask("GET", f"/v1/rooms/{self.id}", self.world.keys["booking"])["revision"]}"'

    def admitted(self, role):
        person = self.people[role]
        body = {"code": person["code"]}
        self.sessions[role] = self.world.ask("POST", f"/v1/join/{person['join_token']}", json=body)["session_token"]
