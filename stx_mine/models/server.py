"""A model behind a server that speaks the protocol of OpenAI, or that of rerankers.

A server is named by its base address, as clients of OpenAI take it: http://localhost:8000/v1.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import requests
from numpy.typing import NDArray
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util.retry import Retry

from stx_mine.errors import ConfigError, ModelError, one_line, shortened
from stx_mine.models.config import API_KEY, ServerFields

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Answers that may be better the next time: too many requests, and a server that is ill or starts.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_TRIES, _CONNECTS, _BACKOFF, _LONGEST_WAIT = 6, 3, 0.5, 60
_TIMEOUT = (10, 600)
# Numbers of a probe that differ by less are of one model: servers compute in batches, in half
# precision.
PROBE_TOLERANCE = 0.02


class RefusedError(ModelError):
    """The server will not answer this request, however often it is asked."""


@dataclass(frozen=True)
class ModelServer:
    """Asks a server; several threads may use one.

    Attributes:
        option: The option that names it.
        url: Its base address.
        asked_model: The model that is asked for; None for the only one that it has.
        at_once: Requests at a time.
        per_minute: Requests a minute, at most; None for as many as it answers.
        model_option: The option that names the model.
    """

    option: str
    url: str
    asked_model: str | None = None
    at_once: int = 8
    per_minute: float | None = None
    model_option: str = "--server-model"

    @classmethod
    def of_config(cls, option: str, url: str, config: ServerFields) -> "ModelServer":
        """The server of an option."""
        limits = config.requests, config.requests_per_minute
        return cls(option, url.rstrip("/"), config.server_model, *limits)

    @property
    def name(self) -> str:
        """The option that names it, with its value."""
        return f"{self.option} {self.url}"

    def __getstate__(self) -> dict[str, Any]:
        """The fields; connections and locks stay here."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _session(self) -> requests.Session:
        session = requests.Session()
        retry = Retry(
            total=_TRIES,
            connect=_CONNECTS,
            status_forcelist=_PASSING,
            allowed_methods=None,
            backoff_factor=_BACKOFF,
            backoff_max=_LONGEST_WAIT,
            redirect=0,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=self.at_once, max_retries=retry))
        if key := os.environ.get(API_KEY):
            session.auth = _Key(key)
        return session

    @cached_property
    def _turns(self) -> "_Turns":
        return _Turns(self.per_minute)

    @cached_property
    def model(self) -> str:
        """The name of the model.

        Raises:
            ConfigError: None is named, and the server has not exactly one.
        """
        if self.asked_model is not None:
            return self.asked_model
        found = self._request("GET", "models", None).get("data")
        listed = found if isinstance(found, list) else []
        names = [str(one["id"]) for one in listed if isinstance(one, dict) and one.get("id")]
        if len(names) != 1:
            raise ConfigError(
                f"expected one model at {self.name}, found "
                f"{', '.join(names[:10]) or 'none'}; name it with {self.model_option}"
            )
        return names[0]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question.

        Args:
            path: What is asked, such as `embeddings`.
            body: JSON-ready, without the name of the model.

        Raises:
            RefusedError: It will not answer this.
            ModelError: It does not answer, or not with a JSON object.
        """
        return self._request("POST", path, {"model": self.model, **body})

    def values_of(
        self, answer: dict[str, Any], rows: str, value: str, items: str, number: int, ndim: int
    ) -> NDArray[np.float64]:
        """float64 (number, ...): what an answer has for each of some items, in their order.

        Args:
            answer: It.
            rows: The name of its list.
            value: The name of the value in a row, with its article.
            items: What was asked about, in words.
            number: How many there were.
            ndim: Dimensions of the result.

        Raises:
            ModelError: It does not have one of each.
        """
        listed = answer.get(rows)
        try:
            assert isinstance(listed, list)
            places = [row["index"] for row in listed]
            found = np.array([row[value.split()[1]] for row in listed], np.float64)
            assert sorted(places) == list(range(number))
            assert found.ndim == ndim
        except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(
                f"expected `{rows}` with an index and {value} for each of {number} {items} from "
                f"{self.name}, found {shortened(answer)}; check the address"
            ) from error
        return found[np.argsort(places)]

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Results of a function that asks, in the order of the items; many at once."""
        threads = ThreadPoolExecutor(self.at_once)
        try:
            return list(threads.map(function, items))
        finally:
            threads.shutdown(cancel_futures=True)

    @cached_property
    def _slots(self) -> threading.BoundedSemaphore:
        """However many threads ask, so many requests are under way."""
        return threading.BoundedSemaphore(self.at_once)

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        where = f"{self.name}/{path}"
        try:
            with self._slots:
                self._turns.take()
                answer = self._session.request(
                    method, f"{self.url}/{path}", json=body, timeout=_TIMEOUT, allow_redirects=False
                )
            # A redirection is no answer: where it leads to, nobody said that the key may go.
            is_good = answer.status_code // 100 == 2
            content = answer.json() if is_good else answer.text
        except requests.JSONDecodeError as error:
            raise ModelError(
                f"expected JSON from {where}, found {shortened(answer.text)}; check the address"
            ) from error
        except requests.RequestException as error:
            raise ModelError(
                f"{where} does not answer ({_reason(error)}); see that the server runs; what is "
                "finished stays, and the same command continues"
            ) from error
        if not is_good:
            raise self._refusal(where, answer.status_code, str(content))
        if not isinstance(content, dict):
            raise ModelError(
                f"expected an object from {where}, found {shortened(content)}; check the address"
            )
        return content

    def _refusal(self, where: str, status: int, text: str) -> ModelError:
        found = f"{where} answers {status} ({one_line(text)[:200] or 'without a word'})"
        if status in (401, 403):
            return ModelError(f"{found}; set the environment variable {API_KEY} to your key")
        if status in (404, 405) or 300 <= status < 400:
            return ModelError(f"{found}; check the address and {self.model_option}")
        if status in _PASSING:
            return ModelError(
                f"{found}, after {_TRIES} tries more; wait, or ask less at a time (--requests, "
                "--requests-per-minute); what is finished stays, and the same command continues"
            )
        return RefusedError(f"{found}; see the log of the server")


class _Key(AuthBase):
    """Sends a key, whatever a .netrc file has for the host."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _Turns:
    """Hands out turns, so many a minute."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0

    def take(self) -> None:
        """Wait for a turn."""
        if not self._gap:
            return
        with self._lock:
            mine = max(self._next, time.monotonic())
            self._next = mine + self._gap
        time.sleep(max(0.0, mine - time.monotonic()))


def _reason(error: BaseException) -> str:
    """The innermost words of a chain of errors about connections."""
    inner: Any = error
    while inner.args and isinstance(inner.args[0], BaseException):
        inner = inner.args[0]
    inner = getattr(inner, "reason", inner)
    return one_line(str(inner).rpartition(": ")[2] or type(inner).__name__)[:200]


def settled(probes: NDArray[np.float64], earlier: Iterable[object]) -> list[list[float]]:
    """What a model said to probes, as a contract holds it: what it said before, where it is alike.

    The weights of a server cannot be seen. What it says to the same texts can, but for rounding.

    Args:
        probes: (P, D) numbers of the order of 1.
        earlier: What contracts of existing results hold; anything.
    """
    for one in earlier:
        before = _numbers(one)
        if before.shape == probes.shape and (np.abs(before - probes) < PROBE_TOLERANCE).all():
            return before.tolist()  # type: ignore[no-any-return]
    return np.round(probes, 4).tolist()  # type: ignore[no-any-return]


def _numbers(value: object) -> NDArray[np.float64]:
    """A value as an array; empty where it is none."""
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return np.empty(0)
