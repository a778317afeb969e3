"""Verifies a sealed package with none of Sportello's own code: the signature with jwcrypto, hashes with hashlib, WebM with
ebmlite, and, for whoever has the session's key, what is encrypted with cryptography.

    python verify_package.py session-0199… signing.jwk [--session-key HEX]

Prints what it found and ends with 0, or names the file that is not as it was sealed and ends with 1. It is also the
shortest description of the format that a program can follow.
"""

import argparse
import hashlib
import io
import json
import pathlib
import struct
import sys

import ebmlite
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwcrypto import jwk, jws
from jwcrypto.common import JWException

OWN = ("manifest.json", "manifest.jws", "manifest.tsr", "manifest.tsr.jws")
MAGIC = b"SPORTVLT"
ZEROS = "0" * 64
MATROSKA = ebmlite.loadSchema("matroska.xml")


class Fault(Exception):
    """A file that is not as it was sealed."""

    def __init__(self, file, what):
        super().__init__(f"{file}: {what}")
        self.file = file


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def signed_bytes(folder, name, key, kind):
    """The payload of a compact JWS, if the key's owner signed it."""
    token = jws.JWS()
    token.allowed_algs = ["EdDSA"]
    try:
        token.deserialize((folder / name).read_bytes().decode("ascii"), key)
    except FileNotFoundError:
        raise Fault(name, "it is missing") from None
    except (JWException, ValueError) as error:
        raise Fault(name, f"not signed with this key: {error}") from None
    if token.jose_header != {"alg": "EdDSA", "kid": key.thumbprint(), "typ": kind}:
        raise Fault(name, f"its header is {token.jose_header}")
    # Base64url may be written in more than one way; it was written in this one.
    if token.serialize(compact=True).encode() != (folder / name).read_bytes():
        raise Fault(name, "it is written in another way")
    return token.payload


def read_manifest(folder, key):
    signed = signed_bytes(folder, "manifest.jws", key, "sportello-manifest+json")
    if not (folder / "manifest.json").is_file():
        raise Fault("manifest.json", "it is missing")
    if (folder / "manifest.json").read_bytes() != signed:
        raise Fault("manifest.json", "its bytes are not those that were signed")
    manifest = json.loads(signed)
    # RFC 8785 for strings, whole numbers, booleans and nulls.
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if canonical != signed or manifest["schema"] != "sportello-manifest/1" or manifest["key_id"] != key.thumbprint():
        raise Fault("manifest.json", "not a manifest in its canonical form")
    if manifest["timestamp_authority"] is not None:
        stamp = signed_bytes(folder, "manifest.tsr.jws", key, "sportello-timestamp")
        if not (folder / "manifest.tsr").is_file() or (folder / "manifest.tsr").read_bytes() != stamp:
            raise Fault("manifest.tsr", "missing, or its bytes are not those that were signed")
    return manifest


def check_files(folder, manifest):
    """Every byte of every file: as it is stored, or, in a plain export, as it was recorded."""
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    own = OWN if manifest["timestamp_authority"] is not None else OWN[:2]
    named = {entry["path"]: entry for entry in manifest["files"]}
    for path in sorted(there - set(named) - set(own)):
        raise Fault(path, "the manifest does not name it")
    for path, entry in named.items():
        if path not in there:
            raise Fault(path, "it is missing")
        data = (folder / path).read_bytes()
        found = {"bytes": len(data), "sha256": sha256(data)}
        if found not in ({"bytes": entry["bytes"], "sha256": entry["sha256"]}, entry.get("plain")):
            raise Fault(path, f"it has {found}")


class Sealed:
    """An encrypted file: 36 bytes of header, then segments of length, ciphertext and tag (STREAM, AES-256-GCM)."""

    def __init__(self, data, name, session_key):
        self.data, self.name = data, name
        if data[:8] != MAGIC or data[8] != 1:
            raise Fault(name, "no encrypted file of version 1")
        salt, self.prefix = data[13:29], data[29:36]
        info = b"sportello file v1\0" + data[:13] + name.encode()
        self.cipher = AESGCM(HKDF(SHA256(), 32, salt, info).derive(session_key))

    def segments(self):
        """The plain bytes of each segment. The last one says that it is; a file cut by a crash has none that does."""
        at, number = 36, 0
        while at < len(self.data):
            (length,) = struct.unpack_from(">I", self.data, at)
            sealed = self.data[at + 4 : at + 4 + length]
            at += 4 + length
            nonce = self.prefix + struct.pack(">I", number)
            try:
                yield self.cipher.decrypt(nonce + (b"\1" if at >= len(self.data) else b"\0"), sealed, None)
            except InvalidTag:
                if at < len(self.data):
                    raise Fault(self.name, f"segment {number} does not authenticate") from None
                try:
                    yield self.cipher.decrypt(nonce + b"\0", sealed, None)
                except InvalidTag:
                    raise Fault(self.name, f"segment {number} does not authenticate") from None
            number += 1


def check_original(folder, facts, session_key):
    name = facts["file"]
    path = folder / "originals" / name
    chain = (folder / "originals" / name.replace(".webm", ".chain.jsonl")).read_bytes()
    data = path.read_bytes()
    encrypted = data[:8] == MAGIC
    at, plain_at, previous, entry = 0, 0, "", {}
    pieces, lines = [], chain.decode().splitlines()
    for number, line in enumerate(lines):
        entry = json.loads(line)
        piece = entry["stored"] if encrypted else entry
        if (entry["n"], entry["previous"], entry["offset"], piece["offset"]) != (number, previous, plain_at, at):
            raise Fault(name, f"line {number + 1} of its chain does not follow from the one before")
        stored = data[at : at + piece["length"]]
        if sha256(stored) != piece["sha256"]:
            raise Fault(name, f"cluster {number}: its bytes were changed")
        pieces.append(stored)
        at, plain_at, previous = at + len(stored), plain_at + entry["length"], sha256(line.encode())
    complete = entry.get("end", False)
    found = (plain_at, len(lines) - 1 - complete, previous, complete)
    if at != len(data) or found != (facts["bytes"], facts["clusters"], facts["chain_head"], facts["complete"]):
        raise Fault(name, f"it has {found}, and the manifest says {facts}")
    if encrypted and session_key is None:
        return
    if encrypted:
        pieces = list(Sealed(data, name, session_key).segments())
        for number, (piece, line) in enumerate(zip(pieces, lines, strict=True)):
            if sha256(piece) != json.loads(line)["sha256"]:
                raise Fault(name, f"cluster {number} holds something else than was recorded")
    check_webm(name, b"".join(pieces), facts["clusters"])


def check_webm(name, data, clusters=None):
    """Reads the file as WebM: one segment of tracks and clusters, whose times do not run backwards."""
    document = MATROSKA.load(io.BytesIO(data), headers=True)
    if document.info["DocType"] != "webm":
        raise Fault(name, "no WebM")
    segment = next(element for element in document if element.name == "Segment")
    counted, before, tracks = 0, -1, set()
    for element in segment:
        if element.name == "Tracks":
            tracks = {
                next(field.value for field in entry if field.name == "TrackNumber")
                for entry in element
                if entry.name == "TrackEntry"
            }
        elif element.name == "Cluster":
            counted += 1
            fields = list(element)
            time = next(field.value for field in fields if field.name == "Timestamp" or field.name == "Timecode")
            blocks = [bytes(field.value) for field in fields if field.name == "SimpleBlock"]
            if time < before or any(block[0] & 0x7F not in tracks for block in blocks):
                raise Fault(name, f"cluster {counted} is out of order, or of tracks that there are not")
            before = time
    if not tracks or counted == 0 or (clusters is not None and counted != clusters):
        raise Fault(name, f"{len(tracks)} tracks and {counted} clusters")


def check_lines(folder, name, facts, own_room):
    """A list whose lines hold the hash of the line before: `hash` is over the line as it is written without it."""
    if facts is None:
        return
    text = (folder / name).read_text()
    previous, room_previous = ZEROS, ZEROS
    for number, line in enumerate(text.splitlines(), 1):
        body, _, digest = line.removesuffix('"}').rpartition(',"hash":"')
        said = json.loads(line)
        follows = said["room_prev"] == room_previous if own_room else (said["seq"], said["prev"]) == (number, previous)
        if sha256((body + "}").encode()) != digest or not follows:
            raise Fault(name, f"line {number} was changed, or is not where it was")
        previous = room_previous = digest
    if (len(text.splitlines()), previous) != (facts["lines"], facts["head"]):
        raise Fault(name, "lines are missing at its end")


def verify(folder, key, session_key=None, media=True):
    """Checks a package; gives its manifest. `media`: `session.webm` is read too, if it can be."""
    folder = pathlib.Path(folder)
    manifest = read_manifest(folder, key)
    check_files(folder, manifest)
    check_lines(folder, "ledger.jsonl", manifest["ledger"], own_room=False)
    check_lines(folder, "access.jsonl", manifest["accesses"], own_room=True)
    for facts in manifest["originals"]:
        check_original(folder, facts, session_key)
    copy = manifest["session_copy"]
    if copy is not None:
        data = (folder / copy["file"]).read_bytes()
        if data[:8] == MAGIC and session_key is not None:
            data = b"".join(Sealed(data, copy["file"], session_key).segments())
            plain = next(entry["plain"] for entry in manifest["files"] if entry["path"] == copy["file"])
            if {"bytes": len(data), "sha256": sha256(data)} != plain:
                raise Fault(copy["file"], "it holds something else than was derived")
        if media and data[:8] != MAGIC:
            check_webm(copy["file"], data)
    return manifest


def read_key(path):
    data = pathlib.Path(path).read_bytes()
    return jwk.JWK.from_json(data.decode()) if data.lstrip().startswith(b"{") else jwk.JWK.from_pem(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="the package")
    parser.add_argument("key", help="the public key of the node that sealed it: JWK or PEM")
    parser.add_argument("--session-key", help="32 bytes in hex: what is encrypted is opened too", type=bytes.fromhex)
    arguments = parser.parse_args()
    try:
        manifest = verify(arguments.folder, read_key(arguments.key), arguments.session_key)
    except Fault as fault:
        print(fault, file=sys.stderr)
        return 1
    print(f"whole: session {manifest['session']}, {len(manifest['files'])} files, {len(manifest['originals'])} originals")
    return 0


if __name__ == "__main__":
    sys.exit(main())
