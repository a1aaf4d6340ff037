"""A hub that does not answer is asked once, and that is said."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

from stx_mine.inputs.hub_access import reach_hub


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the hub had not been asked yet."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server that knows nothing, and what it was asked for."""
    asked: list[str] = []

    class Unknown(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Unknown) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}", asked
        made.shutdown()
        thread.join()


@pytest.mark.usefixtures("online")
def test_a_hub_that_does_not_answer_is_asked_once(
    server: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:secret@127.0.0.1:9")
    assert not reach_hub()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "http://127.0.0.1:9 does not answer" in caplog.text
    assert "only what its cache on this machine holds" in caplog.text
    address, asked = server
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert not reach_hub()
    assert asked == []


@pytest.mark.usefixtures("online")
def test_an_address_that_is_none_is_left_to_the_library(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "hub")
    assert reach_hub()
    assert caplog.text == ""


@pytest.mark.usefixtures("online")
def test_a_hub_that_answers_anything_is_there(
    server: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address, asked = server
    monkeypatch.setattr(constants, "ENDPOINT", address.replace("//", "//me:secret@"))
    assert reach_hub()
    assert len(asked) == 1
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert caplog.text == ""
