"""What people and files are told: without credentials, and each message on one line."""

import re
from typing import Any

MASK = "***"
_NAMES = (
    r"(?:aws_|azure_|hub_|hf_|auth_|access_|api_|session_|refresh_|secret_|account_|client_|user_)*"
    r"(?:token|password|passwd|secret|access_?key(?:_id)?|api_?key|account_?key|secret_?key"
    r"|connection_string|credentials?|signature|sas_?token)"
)
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
# Of a URL: user:password@ (a password may hold slashes), token@, and the values after its `?`.
_PASSWORD = re.compile(r"(?<=://)[^\s/@:'\"]*:[^\s@'\"]+(?=@)|(?<=://)[^\s/@'\"]+(?=@)")
_QUERY = re.compile(r"(://[^\s?#'\"]*\?)([^\s#'\"]+)")
_VALUE = re.compile(r"=[^&;,)\s]*")
_NAMED = re.compile(rf"(?<![\w-])({_NAMES})(\s*=\s*['\"]?)[^\s'\"&;,)]+", re.IGNORECASE)
_TOKEN = re.compile(r"\b(?:hf_\w{16,}|gh[a-z]_\w{20,}|(?:AKIA|ASIA)[0-9A-Z]{16})\b|(?<=Bearer )\S+")
# Line ends and other controls, marks that turn the direction of what follows, halves of characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def masked(text: str) -> str:
    """A text with three stars for the credentials in it."""
    if "://" in text:
        text = _PASSWORD.sub(MASK, text)
        text = _QUERY.sub(lambda found: found[1] + _VALUE.sub(f"={MASK}", found[2]), text)
    text = _NAMED.sub(rf"\1\g<2>{MASK}", text)
    return _TOKEN.sub(MASK, text)


def masked_json(value: Any) -> Any:
    """Something JSON-ready with three stars for the credentials in it."""
    if isinstance(value, dict):
        return {
            name: MASK
            if isinstance(one, str) and one and _SECRET_NAME.fullmatch(str(name))
            else masked_json(one)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked_json(one) for one in value]
    return masked(value) if isinstance(value, str) else value


def has_controls(text: str) -> bool:
    """Whether a text has characters that end a line or change what is shown around them."""
    return _CONTROL.search(text) is not None


def escaped(text: str) -> str:
    """A text whose control characters are written as Python writes them."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
