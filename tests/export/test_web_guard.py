"""Who may press a button: only a page that this process served, by a name of this machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.web_guard import WebError, WebGuard, parse_listen

GUARD = WebGuard(names=["robot7.lab"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("127.0.0.2:80", ("127.0.0.2", 80)),
        ("[::1]:9870", ("::1", 9870)),
    ],
)
def test_where_it_may_listen(text: str, expected: tuple[str, int]) -> None:
    """A bare port is on this machine only; addresses of this machine are taken as they are."""
    assert parse_listen(text, allow_remote=False) == expected


@pytest.mark.parametrize(
    "text", ["", ":80", "host:80", "127.0.0.1:", "127.0.0.1:65536", "::1:1x", "1.2.3:4", "-1", "²"]
)
def test_where_it_cannot_listen(text: str) -> None:
    """Names, missing and impossible ports are refused, whoever allows what."""
    with pytest.raises(WebError, match="legal is PORT or ADDRESS:PORT"):
        parse_listen(text, allow_remote=True)


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80", "192.168.1.7:80"])
def test_other_machines_only_if_told(text: str) -> None:
    """An address that others can reach needs --allow-remote."""
    with pytest.raises(WebError, match="--allow-remote"):
        parse_listen(text, allow_remote=False)
    assert parse_listen(text, allow_remote=True)[1] == 80


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("127.0.0.1:8080", True), ("localhost:9000", True), ("[::1]:8080", True), ("192.168.1.7:80", True),
        ("robot7.lab:8080", True), ("ROBOT7.LAB", True), ("gcl.localhost:1", True),
        ("evil.example:8080", False), ("localhost.evil.example", False), ("notlocalhost", False), ("", False),
        ("user@localhost", False), ("localhost/evil", False), ("localhost:x", False), ("[::1", False),
    ],
)  # fmt: skip
def test_a_name_that_was_pointed_here_is_refused(host: str, right: bool) -> None:
    """Addresses and names of this machine are known; any other name may be an attacker's who pointed it here."""
    assert (GUARD.host_fault(host) is None) == right


def test_a_button_needs_token_and_origin() -> None:
    """The page itself passes, a program with the token too; another page, a missing or a wrong token do not."""
    host, token = "127.0.0.1:8080", GUARD.token
    assert GUARD.post_fault(host, "http://127.0.0.1:8080", token) is None
    assert GUARD.post_fault(host, None, token) is None
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:8081",
        "http://localhost:8080",
        "file://127.0.0.1:8080",
    ):
        assert "another page" in (GUARD.post_fault(host, origin, token) or "")
    for wrong in (None, "", token[:-1], token + "x", "ä"):
        assert "token" in (GUARD.post_fault(host, None, wrong) or "")
    assert WebGuard().token != token and len(token) >= 32


@given(
    host=st.one_of(st.none(), st.text()), origin=st.one_of(st.none(), st.text()), token=st.one_of(st.none(), st.text())
)
def test_any_header_is_judged(host: str | None, origin: str | None, token: str | None) -> None:
    """No header makes the guard raise, and none passes without the token."""
    GUARD.host_fault(host)
    assert GUARD.post_fault(host, origin, token) is not None
