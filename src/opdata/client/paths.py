"""The path of an entity, and of what is below it."""

from __future__ import annotations

from urllib.parse import quote


def path_segment(name: str) -> str:
    """An id as one segment of a path (W9): an id of dots must not mean a directory."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E") if quoted in {".", ".."} else quoted


def entity_path(external_id: str, *rest: str) -> str:
    """The path of an entity, or of something below it. Raises `ValueError` for an empty id."""
    if not external_id or not all(rest):
        raise ValueError("external_id and state_key must not be empty")
    return "/".join(("/entities", *(path_segment(part) for part in (external_id, *rest))))
