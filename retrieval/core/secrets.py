"""What must be in no log, manifest, report or traceback: values of the environment by the names of their variables, and parts of URLs
and connection strings.
"""

import html
import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

HIDDEN = "***"
_NAMES = re.compile(
    r"secret|token|passw|passphrase|_pass$|_pwd$|_pat$|credential|api_?key|_key(_id)?$|auth(?!or)|_dsn$|conn(ection)?_?str(ing)?$|webhook|cookie",
    re.IGNORECASE,
)
_SHORTEST = 8
"""A shorter value is a word that stands in innocent text, too."""
_BEFORE = r"[^/\s:@\[]*:(?!\d+(?:[/?#]|$))"
"""What stands before a password, which may have a slash or an @ in it: a user and a colon, and no port."""
_IN_VARIABLES = re.compile(rf"://{_BEFORE}(\S+)@")
_IN_TEXTS = (
    (re.compile(rf"(?<=://){_BEFORE}[^\s\"'<>]+(?=@)"), HIDDEN),
    (re.compile(r"(?<=://)[^/?#\s\"'<>]+(?=@)"), HIDDEN),
    (
        re.compile(r"([?&](?:[^=&\s]*(?:secret|token|passw|signature|credential|key)[^=&\s]*|sig)=)[^&\s\"'<>]+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b((?:AccountKey|SharedAccess(?:Key|Signature)|Password|Pwd)=)[^;&\s\"'<>]+", re.IGNORECASE), rf"\1{HIDDEN}"),
)


def redacted(text: str) -> str:
    """A text without secrets, as they are or quoted for JSON, HTML or URLs."""
    return _redacted(text, _secrets())


def without_secrets(value: Any) -> Any:
    """A plain value (of dicts, lists and scalars) whose texts have none; numbers stay numbers, even where a secret is all digits."""
    return _without(value, _secrets())


def _without(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return _redacted(value, secrets)
    if isinstance(value, dict):
        return {_redacted(str(name), secrets): _without(inner, secrets) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without(inner, secrets) for inner in value]
    return value


def _redacted(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, instead in _IN_TEXTS:
        text = pattern.sub(instead, text)
    return text


def _secrets() -> list[str]:
    """All forms of all secrets, the longest first, because one may hold another."""
    values = {value for value in _values() if len(value) >= _SHORTEST}
    # An error is one line: white space in it was squeezed.
    values |= {" ".join(value.split()) for value in values}
    return sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)


def _values() -> Iterator[str]:
    for name, value in os.environ.items():
        if _NAMES.search(name):
            yield value
        yield from _IN_VARIABLES.findall(value)


def _forms(value: str) -> Iterator[str]:
    yield value
    yield repr(value)[1:-1]
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield html.escape(value)
    yield html.escape(value).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    yield quote(value, safe="")
    yield quote(value)
