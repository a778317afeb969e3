"""WHIP and WHEP as a client speaks them that we did not write: aiortc.

A WHIP client (RFC 9725) offers only sending tracks, a WHEP client only receiving ones; each POSTs its offer as
`application/sdp` with a bearer token, gets 201 with the answer and a Location, and DELETEs that in the end.
"""

import asyncio
import math
import unittest
from array import array

import aiohttp
import av
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from server import Server, Visit

SENDERS = ("operator", "delegato", "delegante")
#: Luma of each sender's picture and hertz of their voice: enough to tell whose arrived.
LUMA = {"operator": 60, "delegato": 120, "delegante": 200}
HERTZ = {"operator": 300, "delegato": 500, "delegante": 800}
RATE = 48_000


class Camera(VideoStreamTrack):
    """A plain grey of a certain lightness, small and cheap to encode."""

    def __init__(self, luma):
        super().__init__()
        self.luma = luma

    async def recv(self):
        frame = av.VideoFrame(160, 120, "yuv420p")
        for plane, value in zip(frame.planes, (self.luma, 128, 128)):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = await self.next_timestamp()
        return frame


class Microphone(AudioStreamTrack):
    """A steady tone."""

    def __init__(self, hertz):
        super().__init__()
        self.hertz = hertz
        self.sent = 0

    async def recv(self):
        # The silence of aiortc, on its clock; then the tone is written over it.
        frame = await super().recv()
        rate, samples = frame.sample_rate, frame.samples
        tone = array("h", (int(8_000 * math.sin(2 * math.pi * self.hertz * (self.sent + n) / rate)) for n in range(samples)))
        frame.planes[0].update(tone.tobytes().ljust(frame.planes[0].buffer_size, b"\0"))
        self.sent += samples
        return frame


class Client:
    """One peer connection, driven by the three requests of WHIP and WHEP."""

    def __init__(self, visit, session):
        self.visit = visit
        self.session = session
        # One transport from the start: aiortc mixes its transports up when it has to bundle several m-lines of a kind.
        self.peer = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.tracks = []
        self.peer.on("track", self.tracks.append)

    async def post(self):
        await self.peer.setLocalDescription(await self.peer.createOffer())
        headers = {"Authorization": f"Bearer {self.session}", "Content-Type": "application/sdp"}
        url = f"{self.visit.server.url}/v1/session/media"
        async with self.visit.http.post(url, headers=headers, data=self.peer.localDescription.sdp) as response:
            answer = await response.text()
            assert response.status == 201, f"{response.status} {answer}"
            assert response.headers["Content-Type"] == "application/sdp"
            self.location = response.headers["Location"]
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        return answer

    async def connected(self):
        for _ in range(100):
            if self.peer.connectionState == "connected":
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"the connection is {self.peer.connectionState} after 10 s")

    async def hang_up(self):
        await self.visit.ask("DELETE", self.location, self.session)
        await self.peer.close()


def directions(sdp):
    """The direction of each m-line, in order."""
    known = {"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"}
    return [line[2:] for line in sdp.splitlines() if line in known]


class WhipAndWhep(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    async def asyncSetUp(self):
        await self.server.ready()
        self.http = aiohttp.ClientSession()
        self.addAsyncCleanup(self.http.close)
        self.visit = Visit(self.server, self.http)

    async def test_senders_by_whip_are_seen_and_heard_by_a_receiver_by_whep(self):
        await self.visit.book([*SENDERS, "guest"])
        sessions = await self.visit.let_in()

        receiver = self.client(sessions["guest"])
        for kind in ("audio", "video"):
            for _ in range(3):
                receiver.peer.addTransceiver(kind, direction="recvonly")
        answer = await receiver.post()
        self.assertEqual(directions(answer), ["sendonly"] * 6)
        await receiver.connected()

        senders = []
        for role in SENDERS:
            sender = self.client(sessions[role])
            sender.peer.addTransceiver(Microphone(HERTZ[role]), direction="sendonly")
            sender.peer.addTransceiver(Camera(LUMA[role]), direction="sendonly")
            answer = await sender.post()
            self.assertEqual(directions(answer), ["recvonly"] * 2)
            senders.append(sender)
        for sender in senders:
            await sender.connected()

        seen, heard = await asyncio.gather(
            self.pictures([track for track in receiver.tracks if track.kind == "video"]),
            self.voices([track for track in receiver.tracks if track.kind == "audio"]),
        )
        self.assertEqual(sorted(seen), sorted(LUMA.values()), "whose pictures arrived, by their lightness")
        self.assertEqual(sorted(heard), sorted(HERTZ.values()), "whose voices arrived, by their pitch")

        for client in (*senders, receiver):
            await client.hang_up()
        self.assertIsNone(self.server.process.poll(), "the server is gone")

    def client(self, session):
        client = Client(self.visit, session)
        self.addAsyncCleanup(client.peer.close)
        return client

    async def pictures(self, tracks):
        """The lightness of the twentieth frame of each track."""

        async def look(track):
            for _ in range(20):
                frame = await asyncio.wait_for(track.recv(), 20)
            luma = frame.planes[0]
            middle = bytes(luma)[luma.line_size * (frame.height // 2) + frame.width // 2]
            return min(LUMA.values(), key=lambda expected: abs(expected - middle))

        return await asyncio.gather(*map(look, tracks))

    async def voices(self, tracks):
        """The pitch of a second of each track, a quarter of a second after its beginning."""

        async def listen(track):
            sound = array("h")
            while len(sound) < 1.25 * RATE:
                frame = await asyncio.wait_for(track.recv(), 20)
                channels = len(frame.layout.channels)
                sound.extend(array("h", bytes(frame.planes[0])[: 2 * channels * frame.samples])[::channels])
            second = sound[RATE // 4 : RATE // 4 + RATE]
            periods = sum(before <= 0 < after for before, after in zip(second, second[1:]))
            return min(HERTZ.values(), key=lambda hertz: abs(hertz - periods))

        return await asyncio.gather(*map(listen, tracks))

    async def test_the_endpoint_says_what_it_takes(self):
        async with self.http.options(f"{self.server.url}/v1/session/media") as response:
            self.assertLess(response.status, 300)
            self.assertEqual(response.headers["Accept-Post"], "application/sdp")
            self.assertEqual(response.headers["Access-Control-Allow-Origin"], "*")

    async def test_a_whip_client_without_a_session_is_told_401(self):
        peer = RTCPeerConnection()
        peer.addTransceiver("audio", direction="sendonly")
        await peer.setLocalDescription(await peer.createOffer())
        headers = {"Content-Type": "application/sdp"}
        url = f"{self.server.url}/v1/session/media"
        async with self.http.post(url, headers=headers, data=peer.localDescription.sdp) as response:
            self.assertEqual(response.status, 401)
            self.assertEqual(response.headers["Content-Type"], "application/problem+json")
        await peer.close()


if __name__ == "__main__":
    unittest.main()
