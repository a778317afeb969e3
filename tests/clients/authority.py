"""An authority that puts a time on what it is shown (RFC 3161): `openssl ts` behind a small HTTP server."""

import http.server
import pathlib
import subprocess
import tempfile
import threading

CONFIGURATION = """
[authority]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
"""
EXTENSIONS = """
basicConstraints = critical, CA:FALSE
extendedKeyUsage = critical, timeStamping
keyUsage = critical, digitalSignature
"""
KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Authority:
    """Listens on `url`; `root` is the certificate of whoever vouches for it."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="authority-")
        path = pathlib.Path(self.folder.name)
        (path / "openssl.cnf").write_text(CONFIGURATION)
        (path / "extensions").write_text(EXTENSIONS)
        (path / "serial").write_text("01\n")
        self.openssl(f"req -x509 -keyout root.key -out root.pem -days 30 -subj /CN=Root {KEY}")
        self.openssl(f"req -new -keyout own.key -out own.csr -subj /CN=Authority {KEY}")
        self.openssl("x509 -req -in own.csr -CA root.pem -CAkey root.key -CAcreateserial -days 30 -extfile extensions -out own.pem")
        self.root = path / "root.pem"
        authority = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                (path / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
                authority.openssl("ts -reply -queryfile query -signer own.pem -inkey own.key -config openssl.cnf -section authority -out reply")
                reply = (path / "reply").read_bytes()
                self.send_response(200)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def openssl(self, arguments):
        ran = subprocess.run(["openssl", *arguments.split()], cwd=self.folder.name, capture_output=True, text=True)
        assert ran.returncode == 0, f"openssl {arguments}: {ran.stderr}"
        return ran.stdout

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()
