"""WHIP and WHEP as a client speaks them that we did not write: aiortc.

A WHIP client (RFC 9725) offers only sending tracks, a WHEP client only receiving ones; each POSTs its offer as
`application/sdp` with a bearer token, gets 201 with the answer and a Location, and DELETEs that in the end.
"""

import asyncio
import fractions
import unittest

import aiohttp
import av
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from server import Server, Visit

SENDERS = ("operator", "delegato", "delegante")
#: Luma of each sender's picture: enough to tell whose picture arrived.
LUMA = {"operator": 60, "delegato": 120, "delegante": 200}


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


class Client:
    """One peer connection, driven by the three requests of WHIP and WHEP."""

    def __init__(self, visit, session):
        self.visit = visit
        self.session = session
        self.peer = RTCPeerConnection()
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

        receiver = Client(self.visit, sessions["guest"])
        for kind in ("audio", "video"):
            for _ in range(3):
                receiver.peer.addTransceiver(kind, direction="recvonly")
        answer = await receiver.post()
        self.assertEqual(directions(answer), ["sendonly"] * 6)
        await receiver.connected()

        senders = []
        for role in SENDERS:
            sender = Client(self.visit, sessions[role])
            sender.peer.addTransceiver(AudioStreamTrack(), direction="sendonly")
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
        self.assertEqual(heard, 3, "how many voices arrived")

        for client in (*senders, receiver):
            await client.hang_up()
        self.assertIsNone(self.server.process.poll(), "the server is gone")

    async def pictures(self, tracks):
        """The lightness of the twentieth frame of each track."""

        async def look(track):
            for _ in range(20):
                frame = await asyncio.wait_for(track.recv(), 20)
            middle = frame.to_ndarray(format="gray")[60, 80]
            return min(LUMA.values(), key=lambda luma: abs(luma - int(middle)))

        return await asyncio.gather(*map(look, tracks))

    async def voices(self, tracks):
        """How many tracks give a second of sound on a clock that advances evenly."""

        async def listen(track):
            frames = [await asyncio.wait_for(track.recv(), 20) for _ in range(50)]
            steps = {(after.pts - before.pts) * after.time_base for before, after in zip(frames, frames[1:])}
            return steps == {fractions.Fraction(1, 50)}

        return sum(await asyncio.gather(*map(listen, tracks)))

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
