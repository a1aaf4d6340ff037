"""A server of models over HTTP for tests, which answers as a function says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Path and body of a request -> status and what is sent: JSON-ready, or bytes.
Answer = Callable[[str, dict[str, Any]], tuple[int, Any]]


@dataclass
class Served:
    """A server that runs.

    Attributes:
        url: Its base address.
        answer: Says what it answers; may be changed.
        requests: Path and body of each request that came.
        keys: The keys that came with them.
        models: What it lists.
    """

    url: str
    answer: Answer
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    models: list[str] = field(default_factory=lambda: ["one"])

    def asked(self, path: str) -> list[dict[str, Any]]:
        """Bodies of the requests for a path."""
        return [body for asked, body in self.requests if asked == path]


@contextmanager
def serve(answer: Answer) -> Iterator[Served]:
    """A server on a free port of this machine, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            listed = {"data": [{"id": name} for name in served.models]}
            self._send(200, listed if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path.removeprefix("/v1/")
            with lock:
                served.requests.append((path, body))
                served.keys.add(self.headers.get("Authorization"))
            self._send(*served.answer(path, body))

        def _send(self, status: int, content: Any) -> None:
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            if status in (429, 503):
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: Any) -> None:
            pass

    lock = threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}/v1", answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def embeddings_answer(vectors: Any) -> dict[str, Any]:
    """What the protocol of OpenAI says of vectors; in another order than the texts."""
    rows = [{"index": number, "embedding": row.tolist()} for number, row in enumerate(vectors)]
    return {"object": "list", "model": "one", "data": rows[::-1]}
