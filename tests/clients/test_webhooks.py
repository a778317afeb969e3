"""Webhooks as a receiver verifies them with a library that we did not write: standardwebhooks."""

import http.server
import queue
import threading
import unittest

import aiohttp
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from server import Server, Visit

SECRET = "whsec_c2VtcHJlIGxvIHN0ZXNzbyBpbiBxdWVzdG8gdGVzdCE="
OTHER_SECRET = "whsec_dW4gYWx0cm8gc2VncmV0bywgY2hlIG5vbiB2YWxlIQ=="


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps headers and body of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.received = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hooks"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.put((dict(self.headers.items()), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Webhooks(unittest.IsolatedAsyncioTestCase):
    async def test_a_receivers_library_believes_what_we_sign_and_nothing_else(self):
        receiver = Receiver()
        self.addCleanup(receiver.server_close)
        self.addCleanup(receiver.shutdown)
        server = Server(WEBHOOKS__URL=receiver.url, WEBHOOKS__SECRETS=f"{SECRET} {OTHER_SECRET}")
        self.addCleanup(server.stop)
        await server.ready()
        async with aiohttp.ClientSession() as http_client:
            visit = Visit(server, http_client)
            await visit.book(["operator", "delegato", "delegante"])
        headers, body = receiver.received.get(timeout=10)
        headers = {name.lower(): value for name, value in headers.items()}

        for secret in (SECRET, OTHER_SECRET):
            payload = Webhook(secret).verify(body, headers)
            self.assertEqual(payload["type"], "room.booked")
            self.assertEqual(payload["data"]["room_id"], visit.room)
        self.assertTrue(headers["webhook-id"].startswith("msg_"))

        with self.assertRaises(WebhookVerificationError):
            Webhook(SECRET).verify(body.replace(b"booked", b"closed"), headers)
        with self.assertRaises(WebhookVerificationError):
            Webhook(SECRET).verify(body, {**headers, "webhook-id": "msg_another"})
        with self.assertRaises(WebhookVerificationError):
            Webhook("whsec_" + "A" * 44).verify(body, headers)


if __name__ == "__main__":
    unittest.main()
