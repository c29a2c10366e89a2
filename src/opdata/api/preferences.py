"""What a request would like of its answer: the header Prefer (RFC 7240)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

RESPOND_ASYNC: Final = "respond-async"

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
# A quote that is never closed takes all that follows, at once: no header costs more than its length.
_PREFERENCE: Final = re.compile(rf'(?:{_QUOTED}|[^",]|".*)+', re.DOTALL)
_MAX_CHARS: Final = 1_000
_TOKEN: Final = re.compile(
    r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*([^\s;]*))?\s*(?:;.*)?", re.DOTALL
)


def prefers(header: str, token: str) -> bool:
    """Whether a preference that takes no value is expressed in the header, or in several joined by commas.

    Names do not mind case, and parameters are ignored, as is one that came with a value, and a header
    of more than 1,000 characters.
    """
    if len(header) > _MAX_CHARS:
        return False
    return any(name == token and value in {"", '""'} for name, value in _preferences(header))


def _preferences(header: str) -> Iterator[tuple[str, str]]:
    for one in _PREFERENCE.findall(header):
        if (match := _TOKEN.fullmatch(one)) is not None:
            yield match[1].lower(), match[2] or ""
