"""Page and metrics over HTTP: few connections, each with a deadline, and buttons that only the page can press."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from export.black_box import BlackBox, State, StopRequest
from export.live_feed import LiveFeed
from export.prometheus_text import CONTENT_TYPE, metrics_text
from export.web_guard import WebError, WebGuard, parse_listen

_CONNECTIONS = 32
_PAGES = 8  # of them, that are pushed to
_DEADLINE_SECONDS = 5.0  # [s] for a whole request and its answer, pushing excepted
_BODY_BYTES = 1024
_PAGE = Path(__file__).with_name("page.html")


class WebServer:
    """Serves in threads of its own until closed."""

    def __init__(
        self, listen: str, box: BlackBox, feed: LiveFeed, allow_remote: bool = False, names: Iterable[str] = ()
    ) -> None:
        """Begins to serve.

        Args:
            listen: "[HOST:]PORT"; port 0 takes a free one.
            box: Gets what is pressed.
            feed: What the page shows.
            allow_remote: Whether other machines may come.
            names: Further names browsers know this machine by.

        Raises:
            WebError: The address is malformed, not allowed, or taken.
        """
        host, port = parse_listen(listen, allow_remote)
        try:
            self._server = _Server((host, port), box, feed, WebGuard(names))
        except OSError as error:
            raise WebError(f"--web {listen}: cannot listen there: {error.strerror or error}") from error
        port = self._server.server_address[1]
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}/"
        self.token = self._server.guard.token
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.25,), name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends serving; pages that are open lose their connection."""
        self._server.closing = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """Takes a bounded number of connections, and closes those that dawdle."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], box: BlackBox, feed: LiveFeed, guard: WebGuard) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.box, self.feed, self.guard = box, feed, guard
        self.closing = False
        self.buttons = threading.Lock()
        self.pages = threading.Semaphore(_PAGES)
        self._places = threading.Semaphore(_CONNECTIONS)
        self._begun: dict[Any, float] = {}  # connection -> [s] when it came
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.without_deadline(request)
            self._places.release()

    def without_deadline(self, request: Any) -> None:
        with self._lock:
            self._begun.pop(request, None)

    def service_actions(self) -> None:
        # A time-out of the socket starts anew with every byte; this one does not.
        limit = time.monotonic() - _DEADLINE_SECONDS
        with self._lock:
            late = [request for request, begun in self._begun.items() if begun < limit]
        for request in late:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is its client's business; nothing is printed for it."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _DEADLINE_SECONDS
    server_version, sys_version = "gcl", ""

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: standard output is the controller's."""

    def do_GET(self) -> None:
        fault = self.server.guard.host_fault(self.headers.get("Host"))
        answers = {"/": self._page, "/events": self._events, "/metrics": self._metrics, "/healthz": self._health}
        answer = answers.get(self.path.partition("?")[0])
        if fault is not None:
            self._refuse(HTTPStatus.FORBIDDEN, fault)
        elif answer is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"here are {', '.join(answers)}")
        else:
            answer()

    def do_POST(self) -> None:
        headers = self.headers
        length = headers.get("Content-Length", "0")
        if "Transfer-Encoding" in headers or not (length.isascii() and length.isdecimal() and len(length) < 10):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "a request here tells its length")
            return
        if int(length) > _BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {_BODY_BYTES} bytes")
            return
        self.rfile.read(int(length))  # a button says nothing, but a browser wants it taken
        host, guard = headers.get("Host"), self.server.guard
        fault = guard.host_fault(host) or guard.post_fault(host, headers.get("Origin"), headers.get("X-Gcl-Token"))
        box = self.server.box
        buttons = {
            "/stop": lambda: box.request_stop(StopRequest.SOFT),
            "/emergency-stop": lambda: box.request_stop(StopRequest.EMERGENCY),
            "/save": box.request_save,
            "/here": lambda: box.operator_alive(time.monotonic_ns()),
        }
        if fault is not None:
            self._refuse(HTTPStatus.FORBIDDEN, fault)
        elif self.path not in buttons:
            self._refuse(HTTPStatus.NOT_FOUND, f"buttons are {', '.join(buttons)}")
        else:
            with self.server.buttons:
                buttons[self.path]()
            self._send(HTTPStatus.OK, "application/json", b"{}")

    def _other_method(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "GET looks, POST presses a button", {"Allow": "GET, POST"})

    do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _other_method  # noqa: N815

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        text = _PAGE.read_text(encoding="utf-8").replace("__TOKEN__", self.server.guard.token)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        data = text.replace("__NONCE__", nonce).encode()
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", data, {"Content-Security-Policy": policy})

    def _metrics(self) -> None:
        text = metrics_text(self.server.box, self.server.feed, time.monotonic_ns())
        self._send(HTTPStatus.OK, CONTENT_TYPE, text.encode())

    def _health(self) -> None:
        status, lost = self.server.box.status(), self.server.feed.lost
        healthy = lost is None and status.fault is None and status.state is not State.NOT_ARMED
        fault = None if status.fault is None else status.fault.reason
        data = json.dumps({"healthy": healthy, "state": status.state.text, "fault": fault, "lost": lost}).encode()
        self._send(HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE, "application/json", data)

    def _events(self) -> None:
        if not self.server.pages.acquire(blocking=False):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"{_PAGES} pages are open already")
            return
        try:
            self.server.without_deadline(self.request)
            self._head(HTTPStatus.OK, "text/event-stream", {})
            self._push("introduction", self.server.feed.introduction)
            number = 0
            while not self.server.closing:
                events = self.server.feed.after(number, seconds=1.0)
                if len(events) > 1:
                    self._push("history", f"[{','.join(text for _, text in events)}]")
                elif events:
                    self._push("tick", events[0][1])
                else:
                    self._push("alive", "{}")
                number = events[-1][0] if events else number
        except OSError:  # it went away, or takes nothing any more
            self.close_connection = True
        finally:
            self.server.pages.release()

    def _push(self, event: str, data: str) -> None:
        # Not wfile, whose write may be cut short by a time-out without telling
        self.connection.sendall(f"event: {event}\ndata: {data}\n\n".encode())

    def _refuse(self, status: HTTPStatus, reason: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps({"error": reason}).encode(), headers or {})

    def _send(self, status: HTTPStatus, kind: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self._head(status, kind, {"Content-Length": str(len(data)), **(headers or {})})
            if self.command != "HEAD":
                self.connection.sendall(data)
        except OSError:
            self.close_connection = True

    def _head(self, status: HTTPStatus, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", **headers,
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
