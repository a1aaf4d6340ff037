"""The hub of models and datasets: whether it answers."""

import logging
import os
import ssl
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from huggingface_hub import constants

_SECONDS = 10


def reach_hub() -> bool:
    """Whether the hub answers; else nothing but its cache on this machine can be read.

    A hub that does not answer is asked once: from then on this process and those that it starts
    read the cache, as with HF_HUB_OFFLINE. Libraries ask again for every file, for half a minute.
    """
    was_offline = constants.HF_HUB_OFFLINE
    problem = hub_problem()
    if problem and not was_offline:
        logging.getLogger(__name__).warning(
            "%s: only what its cache on this machine holds is read", problem
        )
    return not problem


def hub_problem() -> str:
    """Why the hub cannot be reached; empty where it answers. It is asked once, as above."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    parts = urlsplit(constants.ENDPOINT)
    # Whoever asks need not be anybody for an answer, and `urlopen` takes a name for a host.
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        with urlopen(Request(address, method="HEAD"), timeout=_SECONDS):  # noqa: S310
            return ""
    except (HTTPError, HTTPException, ValueError):
        # It answers, or its address is none, which is for the library to say.
        return ""
    except OSError as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLError):
            # It answers; whether its certificate is trusted is for the library to say.
            return ""
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"
        return f"{address} does not answer ({reason})"
