"""A call ends within its time, with an answer or with a failure that has a name."""

import contextlib
import socket
import threading
import time

import pytest

from guardjax.engines.http import Server, ServerLost
from guardjax.rl.engine import EngineError


@contextlib.contextmanager
def replying(*parts, pause=0.0):
    """A socket that answers one call with these bytes, with a pause before each but the first."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for number, part in enumerate(parts):
                time.sleep(pause if number else 0)
                connection.sendall(part)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def reply(body, status="200 OK", length=None):
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}".encode()


def test_json_comes_back():
    with replying(reply('{"a": [1, 2.5]}')) as url:
        assert Server("vllm", url, 5.0).post("/x", {"q": 1}) == {"a": [1, 2.5]}
    with replying(reply("")) as url:
        Server("vllm", url, 5.0).tell("/x")


@pytest.mark.parametrize("answer, error, words", [
    (reply("nope", "404 Not Found"), EngineError, "refuses /x with status 404: nope"),
    (reply("dead", "503 Busy"), ServerLost, "/x answered 503: dead"),
    (reply("<html>"), EngineError, "did not answer with JSON but with b'<html>'; is it an engine"),
    (reply('{"a": ', length=90), ServerLost,
     "/x: (IncompleteRead|ConnectionReset)"),     # whichever is seen first
    (b"", ServerLost, "/x: .*(closed|reset)"),
], ids=["refused", "failed", "html", "cut", "closed"])
def test_failures_are_told_apart(answer, error, words):
    with replying(answer) as url, pytest.raises(error, match=words):
        Server("vllm", url, 5.0).post("/x", {})


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerLost, match="/x: .*refused"):
        Server("vllm", f"http://127.0.0.1:{port}", 5.0).get("/x")


def test_a_server_that_sends_a_little_now_and_then_is_slow_too():
    """Every part comes within the time of a read, and the whole does not."""
    start = time.monotonic()
    with replying(reply("", length=1000), *[b"1"] * 1000, pause=0.1) as url:
        with pytest.raises(EngineError, match=r"engine vllm at .*: /x took longer than 0\.4 s"):
            Server("vllm", url, 0.4).get("/x")
    assert time.monotonic() - start < 10, "not the hundred seconds that all of it takes"
