"""What makes a load the same load when it is resumed, and where its checkpoint is kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from opdata.client.errors import Forbidden
from opdata.client.transport import AsyncTransport
from opdata.loader.errors import LoadError, NotResumable
from opdata.loader.files import STDIN, find_files
from opdata.loader.selection import Selection

STATE_VARIABLE = "XDG_STATE_HOME"
_DIGEST_CHARACTERS = 16
_KEY_START = 12
_KEY_END = 4


class Resumable(Struct, frozen=True):
    """That a load keeps a checkpoint, and where."""

    path: Path
    resume: bool = False
    """Go on with the load that the file is of, where there is one."""
    required: bool = True
    """Whether a load that cannot keep its checkpoint must not begin."""
    send_unsure: bool = False
    """Send events again of which the server cannot tell any more whether it has them."""
    keep: bool = False
    """Leave the file where it is when the load is complete: it is a step of a plan that goes on."""


class _KeyListed(Struct, rename="camel"):
    masked_key: str


def checkpoint_for(selection: Selection, *, url: str, masked_key: str, resume: bool) -> Path:
    """Where the checkpoint is kept when nothing else is said.

    The name depends on the kind, the sources, the server and the key, so that loads of one file into
    two servers or for two operators do not touch each other's. Other options are no part of it: a load
    that is resumed with others is found, and told so. Raises `LoadError` when there is no place, or when
    several loads could be meant.
    """
    if STDIN in selection.sources:
        raise LoadError(
            "what comes from standard input has no name to find its checkpoint by; --checkpoint FILE "
            "gives it one"
        )
    names = selection.sources if selection.from_ else map(_absolute, selection.sources)
    name = _digest((selection.kind.name, selection.from_, list(names), url.rstrip("/")))
    stem = f"{selection.kind.name}-{name}"
    return _of_key(stem, ".checkpoint", masked_key=masked_key, resume=resume)


def checkpoints_for_plan(plan: Path, *, url: str, masked_key: str, resume: bool) -> Path:
    """The directory for the checkpoints of a plan's steps when nothing else is said.

    It has its name, and raises, as a load's own does.
    """
    stem = f"all-{_digest((_absolute(str(plan)), url.rstrip('/')))}"
    return _of_key(stem, "", masked_key=masked_key, resume=resume)


def _of_key(stem: str, suffix: str, *, masked_key: str, resume: bool) -> Path:
    """The path of the key's own load or, to be resumed where that has none, of the only other key's.

    That may be an earlier key of the same operator; only the server knows, see `check_operator`.
    """
    directory = state_directory()
    own = directory / f"{stem}-{_digest(masked_key)}{suffix}"
    if not resume or own.exists():
        return own
    others = sorted(directory.glob(f"{stem}-*{suffix}"))
    if len(others) > 1:
        raise LoadError(
            "--resume: several loads of these sources have not ended, each begun with another API key; "
            f"name the checkpoint of one by --checkpoint: {', '.join(map(str, others))}"
        )
    return others[0] if others else own


def state_directory() -> Path:
    """Where this user's programs keep what they need to go on. Raises `LoadError` when that is nowhere."""
    given = os.environ.get(STATE_VARIABLE, "")
    try:
        state = Path(given) if given else Path.home() / ".local" / "state"
    except RuntimeError:
        raise LoadError(
            f"there is no home directory for a checkpoint; --checkpoint FILE or {STATE_VARIABLE} "
            "gives it a place"
        ) from None
    return state / "opdata" / "loads"


def identity_of(
    selection: Selection,
    *,
    url: str,
    batch_size: int,
    max_body_bytes: int,
    rejects: Path | None,
) -> dict[str, str]:
    """What must be the same for a load to be resumed, by the words that say so when it is not.

    Files are told by size and time of change; what is in them, and in other sources, by the digests of
    the batches. Raises `LoadError` for sources that are not there.
    """
    apart = ("kind", "sources")
    options = {
        name: value
        for name, value in msgspec.structs.asdict(selection).items()
        if name not in apart
    }
    identity = {
        "the kind": selection.kind.name,
        "the server's address": _digest(url.rstrip("/")),
        "the sources": _digest([str(source) for source in selection.sources]),
        "the mapping (--sql, --entity-type and the like)": _digest(options),
        "--batch-size": f"{batch_size} {max_body_bytes}",
        "--rejects": "" if rejects is None else _absolute(str(rejects)),
    }
    return identity | {f"the file {path}": _file_state(path) for path in _files(selection)}


def masked(api_key: str) -> str:
    """The key as the server lists it."""
    return f"{api_key[:_KEY_START]}…{api_key[-_KEY_END:]}"


async def check_operator(transport: AsyncTransport, masked_key: str) -> None:
    """Raise `NotResumable` unless the masked key is one of the operator we speak for, revoked ones too.

    As well when our own key may not list keys: then nobody can say.
    """
    try:
        answer = await transport.get("/api-keys")
    except Forbidden:
        raise NotResumable(
            "--resume: the load was begun with another API key, and this one may not list keys to tell "
            "whether both are of one operator; resume it with the key it was begun with, or with one "
            "that has the scope admin"
        ) from None
    listed = msgspec.json.decode(answer.data, type=list[_KeyListed])
    if masked_key not in {one.masked_key for one in listed}:
        raise NotResumable(
            "--resume: the load was begun with the API key of another operator; resume it with a key of "
            "that one, or begin anew without --resume"
        )


def _files(selection: Selection) -> Iterable[Path]:
    if selection.from_ is not None or STDIN in selection.sources:
        return ()
    return find_files(selection.sources, selection.format)


def _file_state(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def _absolute(source: str) -> str:
    return source if source == STDIN else os.path.abspath(source)  # noqa: PTH100 - links stay


def _digest(value: Sequence[object] | dict[str, object] | str) -> str:
    return sha256(msgspec.json.encode(value)).hexdigest()[:_DIGEST_CHARACTERS]
