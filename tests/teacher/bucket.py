"""A bucket that speaks what tensorstore's `gs://` driver asks for, and keeps its objects in memory.

The JSON API of Cloud Storage: https://cloud.google.com/storage/docs/json_api/v1/objects.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_PAGE = 7
"""Names of one answer to a listing: few, so that the driver must ask for the next page."""


class Bucket(ThreadingHTTPServer):
    """One bucket on this machine.

    Attributes:
      objects: `(generation, content)` by name.
      requests: method and path of each request, in the order in which they came.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self._generation = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, content: bytes) -> None:
        self._generation += 1
        self.objects[name] = self._generation, content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 2**16  # an answer in one packet: two would wait for each other, 40 ms each time
    server: Bucket

    def log_message(self, format, *args):
        """Nothing: the tests look at `requests`."""

    def do_GET(self):
        self._answer_to("GET")

    def do_POST(self):
        self._answer_to("POST")

    def do_DELETE(self):
        self._answer_to("DELETE")

    def _answer_to(self, method: str) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.requests.append((method, url.path))
            if method == "POST":
                self._insert(query, content)
            elif url.path.endswith("/o"):
                self._list(query)
            else:
                name = unquote(url.path.partition("/o/")[2])
                (self._get if method == "GET" else self._delete)(name, query)

    def _insert(self, query: dict[str, str], content: bytes) -> None:
        name = query["name"]
        if self._meets(name, query):
            self.server.put(name, content)
            self._send_json(self._metadata(name))
        else:
            self._send(412)

    def _get(self, name: str, query: dict[str, str]) -> None:
        if name not in self.server.objects:
            self._send(404)
        elif not self._meets(name, query):
            self._send(412)
        elif query.get("alt") != "media":
            self._send_json(self._metadata(name))
        else:
            generation, content = self.server.objects[name]
            status, headers = 200, {"x-goog-generation": str(generation)}
            if (span := self.headers.get("Range")) is not None:
                first, _, last = span.removeprefix("bytes=").partition("-")
                start, end = int(first), int(last or len(content) - 1) + 1
                status = 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
                content = content[start:end]
            self._send(status, content, headers)

    def _delete(self, name: str, query: dict[str, str]) -> None:
        if name not in self.server.objects:
            self._send(404)
        elif not self._meets(name, query):
            self._send(412)
        else:
            del self.server.objects[name]
            self._send(204)

    def _list(self, query: dict[str, str]) -> None:
        token = bytes.fromhex(query.get("pageToken", "")).decode()
        first = token or query.get("startOffset", "")
        last = query.get("endOffset")
        names = [
            name
            for name in sorted(self.server.objects)
            if name >= first and (last is None or name < last)
        ]
        answer: dict[str, Any] = {"items": [self._metadata(name) for name in names[:_PAGE]]}
        if len(names) > _PAGE:
            answer["nextPageToken"] = names[_PAGE].encode().hex()  # the driver does not quote it
        self._send_json(answer)

    def _meets(self, name: str, query: dict[str, str]) -> bool:
        generation = str(self.server.objects.get(name, (0,))[0])
        return (
            query.get("ifGenerationMatch", generation) == generation
            and query.get("ifGenerationNotMatch") != generation
        )

    def _metadata(self, name: str) -> dict[str, str]:
        generation, content = self.server.objects[name]
        return {"name": name, "generation": str(generation), "size": str(len(content))}

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serving() -> Iterator[Bucket]:
    """A bucket for as long as it is needed."""
    with Bucket() as bucket:
        thread = threading.Thread(target=bucket.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield bucket
        finally:
            bucket.shutdown()
            thread.join()
