"""Packages as a stranger verifies them, with `verify_package.py` and no code of ours."""

import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

from jwcrypto import jwk

import server
from verify_package import MAGIC, Fault, read_key, verify

#: Left by the Rust tests: a package, its public key, and the session's key.
MADE = server.ARTEFACTS.parent / "packages"
#: Bits that are flipped in each package. Each costs a whole verification.
FLIPS = 150


class Packages(unittest.TestCase):
    def setUp(self):
        if not MADE.is_dir():
            self.skipTest(f"no packages in {MADE}: the Rust tests leave them there")
        self.random = random.Random(20260120)

    def copies(self):
        """Of each package: where it is, a copy to change, the public key and the session's key."""
        for made in sorted(MADE.iterdir()):
            copy = tempfile.TemporaryDirectory()
            self.addCleanup(copy.cleanup)
            folder = pathlib.Path(copy.name) / "session"
            shutil.copytree(made / "session", folder)
            yield made, folder, read_key(made / "signing.jwk"), bytes.fromhex((made / "session.key").read_text())

    def test_a_whole_package_is_whole_with_and_without_the_sessions_key(self):
        for _, folder, key, session_key in self.copies():
            for opened in (None, session_key):
                self.assertEqual(len(verify(folder, key, opened, media=False)["originals"]), 2)

    def test_a_flipped_bit_is_found_in_the_file_that_it_is_in(self):
        for _, folder, key, session_key in self.copies():
            paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            for number in range(FLIPS):
                path = paths[number % len(paths)]
                original = (folder / path).read_bytes()
                byte, bit = self.random.randrange(len(original)), 1 << self.random.randrange(8)
                flipped = bytearray(original)
                flipped[byte] ^= bit
                (folder / path).write_bytes(flipped)
                with self.assertRaises(Fault, msg=f"bit {bit} of byte {byte} of {path}") as found:
                    verify(folder, key, session_key, media=False)
                self.assertEqual(found.exception.file, path)
                (folder / path).write_bytes(original)

    def test_missing_and_additional_files_are_found(self):
        for _, folder, key, _ in self.copies():
            (folder / "originals" / "guest-1.webm").write_bytes(b"")
            with self.assertRaisesRegex(Fault, "originals/guest-1.webm: the manifest does not name it"):
                verify(folder, key, media=False)
            (folder / "originals" / "guest-1.webm").unlink()
            (folder / "ledger.jsonl").unlink()
            with self.assertRaisesRegex(Fault, "ledger.jsonl: it is missing"):
                verify(folder, key, media=False)

    def test_another_key_is_not_believed(self):
        for _, folder, _, _ in self.copies():
            other = jwk.JWK.generate(kty="OKP", crv="Ed25519")
            with self.assertRaisesRegex(Fault, "manifest.jws: not signed with this key"):
                verify(folder, other, media=False)

    def test_the_wrong_session_key_opens_nothing(self):
        for _, folder, key, _ in self.copies():
            if (folder / "session.webm").read_bytes()[:8] == MAGIC:
                with self.assertRaisesRegex(Fault, "segment 0 does not authenticate"):
                    verify(folder, key, bytes(32), media=False)

    def test_the_server_and_the_script_agree(self):
        for made, folder, _, _ in self.copies():
            command = [server.BINARY, "verify", str(folder), "--key", str(made / "signing.jwk")]
            self.assertEqual(subprocess.run(command, capture_output=True, check=False).returncode, 0)
            original = folder / "originals" / "delegato-1.webm"
            data = original.read_bytes()
            original.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            ours = subprocess.run(command, capture_output=True, check=False, text=True)
            self.assertEqual(ours.returncode, 1)
            self.assertIn("originals/delegato-1.webm: cluster ", ours.stderr)
            script = [sys.executable, str(pathlib.Path(__file__).with_name("verify_package.py")), str(folder)]
            theirs = subprocess.run([*script, str(made / "signing.jwk")], capture_output=True, check=False, text=True)
            self.assertEqual(theirs.returncode, 1)
            self.assertIn("originals/delegato-1.webm: ", theirs.stderr)


if __name__ == "__main__":
    unittest.main()
