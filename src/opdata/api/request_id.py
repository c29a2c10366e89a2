"""The id that ties a request, its answer and its log line together (W8)."""

from __future__ import annotations

import os
import re
from typing import Final

from opdata.keys import holds_key

_SANE: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(sent: str | None) -> str:
    """The client's own id when it is sane, else a new one.

    An API key that was put into the wrong header is not sane: ids are logged.
    """
    if sent is not None and _SANE.fullmatch(sent) and not holds_key(sent):
        return sent
    return os.urandom(16).hex()
