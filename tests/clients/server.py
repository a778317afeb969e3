"""The real server in a process of its own, and the people who come to it over REST."""

import asyncio
import json
import os
import pathlib
import re
import subprocess
import tempfile
import threading
from datetime import datetime, timedelta, timezone

import aiohttp

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
BINARY = os.environ.get("SPORTELLO_BIN") or str(TARGET / "debug" / "sportello")
ARTEFACTS = pathlib.Path(os.environ.get("ARTEFACTS") or TARGET / "test-artefacts") / "clients"


class Server:
    """`sportello serve` on an empty data folder; `configuration`: names below SPORTELLO__, like HTTP__LISTEN."""

    def __init__(self, **configuration):
        self.data = tempfile.TemporaryDirectory(prefix="sportello-")
        #: Where it listens, as it says itself.
        self.url = None
        environment = {
            **os.environ,
            "SPORTELLO__HTTP__LISTEN": "127.0.0.1:0",
            "SPORTELLO__MEDIA__FIRST_PORT": "0",
            "SPORTELLO__STORAGE__DATA_DIR": self.data.name,
            **{f"SPORTELLO__{name}": value for name, value in configuration.items()},
        }
        self.process = subprocess.Popen(
            [BINARY, "serve"],
            cwd=self.data.name,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.keys = {}
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with open(ARTEFACTS / "server.log", "w", encoding="utf-8") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                if found := re.search(r"(booking|operator|compliance|metrics) key: *(\S+)", line):
                    self.keys[found[1]] = found[2]
                if found := re.search(r"listening on (http:\S+)", line):
                    self.url = found[1]

    async def ready(self):
        """Waits until it answers; fails if it does not."""
        for _ in range(200):
            if self.process.poll() is not None:
                break
            if self.url is not None:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"the server did not start, see {ARTEFACTS / 'server.log'}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        self.process.stdout.close()
        self.data.cleanup()


class Visit:
    """One room on a server, and requests of its people."""

    def __init__(self, server, http):
        self.server = server
        self.http = http
        self.people = {}

    async def ask(self, method, path, bearer=None, **request):
        """A request that must be accepted; gives its JSON, if any."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        async with self.http.request(method, self.server.url + path, headers=headers, **request) as response:
            text = await response.text()
            assert response.status < 300, f"{method} {path}: {response.status} {text}"
            return json.loads(text) if text else None

    async def book(self, roles):
        now = datetime.now(timezone.utc)
        booking = {
            "profile": "delega",
            "office": "Roma",
            "counter": "Deleghe",
            "reason": "Delega dell'identità digitale",
            "start": now.isoformat(),
            "end": (now + timedelta(minutes=30)).isoformat(),
            "participants": [{"role": role, "name": f"Persona {role}"} for role in roles],
        }
        booked = await self.ask("POST", "/v1/rooms", self.server.keys["booking"], json=booking)
        self.room = booked["room"]["id"]
        self.people = {person["role"]: person for person in booked["participants"]}

    async def let_in(self):
        """Everyone types their code, consents and enters; the operator opens and lets all others in. Session tokens by role."""
        sessions = {}
        for role, person in self.people.items():
            session = await self.ask("POST", f"/v1/join/{person['join_token']}", json={"code": person["code"]})
            sessions[role] = token = session["session_token"]
            version = (await self.ask("GET", "/v1/session", token))["consent_text_version"]
            await self.ask("POST", "/v1/session/consent", token, json={"text_version": version})
            await self.ask("POST", "/v1/session/enter", token)
        operator = sessions["operator"]
        await self.ask("POST", f"/v1/rooms/{self.room}/open", operator)
        for role, person in self.people.items():
            if role != "operator":
                await self.ask("POST", f"/v1/rooms/{self.room}/participants/{person['id']}/admit", operator)
        return sessions
