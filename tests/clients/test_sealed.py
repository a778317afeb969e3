"""What a running server sealed, after a call in which someone dropped and came back, as a stranger verifies it."""

import asyncio
import os
import pathlib
import subprocess
import unittest

import server
from authority import Authority
from verify_package import read_key, verify

LOADTEST = os.environ.get("LOADTEST_BIN") or str(server.TARGET / "debug" / "loadtest")
#: A debug build on a busy machine: the limits are not those of a machine that serves.
CALL = "call --rooms 1 --duration 10s --reconnect 3s --max-join 10s --max-first-media 10s --max-loss 1".split()
#: Sealing has the least priority. Seconds.
LONGEST_SEALING = 90


class Sealed(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.authority = Authority()
        self.addCleanup(self.authority.stop)
        self.server = server.Server(
            SEALING__TIMESTAMP_URL=self.authority.url, SEALING__TIMESTAMP_CA=str(self.authority.root)
        )
        self.addCleanup(self.server.stop)
        await self.server.ready()

    async def package(self):
        """The folder of the one package, once what was recorded has gone from the recordings folder."""
        data = pathlib.Path(self.server.data.name)
        for _ in range(LONGEST_SEALING * 10):
            packages = [signature.parent for signature in data.glob("packages/session-*/manifest.jws")]
            if packages and not any(data.glob("recordings/*/*.webm")):
                return packages[0]
            await asyncio.sleep(0.1)
        raise AssertionError("nothing was sealed")

    async def test_a_call_with_a_drop_and_a_return_is_a_package_that_a_stranger_verifies(self):
        environment = {**os.environ, "SPORTELLO_BOOKING_KEY": self.server.keys["booking"]}
        call = [LOADTEST, *CALL, "--url", self.server.url]
        await asyncio.to_thread(subprocess.run, call, env=environment, check=True)
        package = await self.package()
        key = read_key(pathlib.Path(self.server.data.name) / "secrets" / "signing.jwk")
        # Two of the person who came back, and one of each of the others.
        self.assertEqual(len(verify(package, key)["originals"]), 4)
        # Somebody else vouches for when it was signed: openssl reads that without us.
        timestamp, signed = package / "manifest.tsr", package / "manifest.jws"
        said = self.authority.openssl(f"ts -verify -in {timestamp} -data {signed} -CAfile {self.authority.root}")
        self.assertIn("OK", said)


if __name__ == "__main__":
    unittest.main()
