"""A server that speaks OpenAI's protocol for chat with pictures and for edits, on this machine."""

import base64
import contextlib
import http.server
import io
import json
import threading

import numpy as np
from PIL import Image

from guardjax.pairs.kept import png_bytes


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


class FakeServer:
    """`say(picture, words) -> text` answers chats, `paint(picture, words) -> picture` edits.

    A function may return an int, which is an HTTP status, or bytes, which is the body as it is.
    """

    def __init__(self, say=None, paint=None):
        self.say, self.paint = say, paint
        self.requests, self.keys = [], []

    def answer(self, path, headers, body):
        self.requests.append(path)
        self.keys.append(headers["Authorization"])
        if path == "/v1/chat/completions":
            asked = json.loads(body)
            words, picture = asked["messages"][0]["content"]
            data = picture["image_url"]["url"].removeprefix("data:image/png;base64,")
            found = self.say(decoded(base64.b64decode(data)), words["text"], asked["seed"])
            return found if not isinstance(found, str | None) else json.dumps({
                "id": "1", "object": "chat.completion", "created": 0, "model": asked["model"],
                "choices": [{"index": 0, "finish_reason": "stop",
                             "message": {"role": "assistant", "content": found}}]}).encode()
        boundary = headers["Content-Type"].partition("boundary=")[2].encode()
        parts = {}
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, value = part.strip(b"\r\n").partition(b"\r\n\r\n")
            parts[head.split(b'name="')[1].split(b'"')[0].decode()] = value
        found = self.paint(decoded(parts["image"]), parts["prompt"].decode())
        if isinstance(found, int | bytes):
            return found
        data = base64.b64encode(png_bytes(found)).decode()
        return json.dumps({"created": 0, "data": [{"b64_json": data}]}).encode()


@contextlib.contextmanager
def serving(fake):
    """The server's URL while the block lasts."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = fake.answer(self.path, self.headers, body)
            status, body = (found, b'{"error": {"message": "no"}}') if isinstance(found, int) \
                else (200, found)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
