"""Bytes to items: whole batches at once, then item by item where one of them is bad (W20–W28).

A batch whose every item has the right shape is decoded in one C call. Only when that fails is it
taken apart, so that a bad item costs itself and not its neighbours (W23).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, Generic, TypeGuard, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct

from opdata.errors import InvalidInput
from opdata.model import MASK, MAX_EXTERNAL_ID_CHARS, BatchResult, ItemError
from opdata.wire.schema import BatchOut, EntityItem, EventItem, StateItem
from opdata.wire.text import (
    MAX_MEMBERS,
    check_body,
    check_depth,
    check_members,
    check_text,
    count_brackets,
    count_items,
    has_bad_text,
    has_many_values,
    may_have_bad_text,
    surely_shallow,
    too_deep,
)

Item = TypeVar("Item", EntityItem, EventItem, StateItem)

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ANY_ITEMS: Final = msgspec.json.Decoder(list[Raw])
_ANY_VALUE: Final = msgspec.json.Decoder(Raw)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_TYPE_NAMES: Final = {"{": "an object", "[": "an array", '"': "a string", "t": "a boolean"}
_MAX_LINES: Final = 100_000
_BAD_TEXT: Final = "Item holds text that cannot be stored: U+0000 or a lone surrogate"


class Malformed(Struct, frozen=True):
    """An item whose members are not all there or not all of the right type.

    `members` has those that are right, so that the template's problems can be told too;
    `problems` has a message for each that is not.
    """

    external_id: str | None
    members: dict[str, Any]
    problems: list[str]


def all_well_formed(items: Sequence[Item | Malformed]) -> TypeGuard[Sequence[Item]]:
    """Whether none of them is malformed."""
    return Malformed not in set(map(type, items))


class Batch(Struct, Generic[Item], frozen=True):
    """A decoded batch, in the order sent.

    Unless `look_closely`, no value in it is null, and no entity's is the mask of a personal field.
    """

    items: Sequence[Item | Malformed]
    look_closely: bool


class ItemShape(Generic[Item]):
    """How items of one kind are decoded: the struct, and its members with their checks."""

    def __init__(
        self,
        item: type[Item],
        *,
        object_member: str | None,
        taken_apart: bool = False,
        optional: frozenset[str],
    ) -> None:
        self._item: type[Item] = item
        self._one: msgspec.json.Decoder[Item] = msgspec.json.Decoder(item)
        self._many = msgspec.json.Decoder(list[item])  # type: ignore[valid-type] # built once a kind
        self._object_member = object_member
        self._taken_apart = taken_apart
        self._optional = optional

    def batch(self, body: bytes, max_items: int, *, ndjson: bool = False) -> Batch[Item]:
        """Decode a batch body. Raises `InvalidInput` when it is not 1 to `max_items` items (W20)."""
        if ndjson:
            return self._lines(body, max_items)
        body = check_text(body)
        brackets = count_brackets(body)
        # What an item is made of stays text unless it is taken apart; then there is an object for each
        # bracket at most.
        many = has_many_values(body) if self._taken_apart else brackets > MAX_MEMBERS
        if many:
            self._refuse_too_many(body, max_items)
        items = None if may_have_bad_text(body) else self._all_right(body, brackets)
        if items is not None:
            _check_count(len(items), max_items)
            return Batch(items, b"null" in body or (self._taken_apart and _may_have_mask(body)))
        if has_many_values(body):
            self._refuse_too_many(body, max_items)
        check_depth(body)
        try:
            raw_items = _ANY_ITEMS.decode(body)
        except msgspec.ValidationError:
            message = (
                f"The body must be a JSON array of 1 to {max_items} items, not {type_name(body)}"
            )
            raise InvalidInput(message) from None
        except msgspec.DecodeError as error:
            raise malformed_json(error) from None
        _check_count(len(raw_items), max_items)
        return Batch([self._loose(raw) for raw in raw_items], look_closely=True)

    def _all_right(self, body: bytes, brackets: int) -> Sequence[Item] | None:
        """The items, None when one of them is not of the right shape. Raises `InvalidInput`."""
        try:
            items: list[Item] = self._many.decode(body)
        except msgspec.ValidationError:
            return None
        except RecursionError:
            raise too_deep() from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise malformed_json(error) from None
        if not self._surely_shallow(items, brackets):
            check_depth(body)
        return items

    def _surely_shallow(self, items: Sequence[Item], brackets: int) -> bool:
        if surely_shallow(brackets, len(items), 1):
            return True
        # To look at the first byte of every object is a third of the price of `check_depth`.
        return (
            self._object_member is not None
            and surely_shallow(brackets, len(items), 2)
            and {bytes(data)[:1] for data in map(attrgetter(self._object_member), items)} == {b"{"}
        )

    def _refuse_too_many(self, body: bytes, max_items: int) -> None:
        # Before they are made: parsed, a tiny value takes thirty times its text.
        check_depth(body)
        _check_count(count_items(body), max_items)
        if self._taken_apart:
            check_members(body)

    def single(self, members: dict[str, Raw], **given: str) -> Batch[Item]:
        """One item as a batch of one; `given` members come from the path and win over the body's."""
        path = {name: Raw(msgspec.json.encode(value)) for name, value in given.items()}
        return Batch([self._loose(msgspec.json.encode(members | path))], look_closely=True)

    def _lines(self, body: bytes, max_items: int) -> Batch[Item]:
        # Blank lines are not items; a line's own faults are its item's (W10).
        if body.count(b"\n") > _MAX_LINES:
            message = f"The body has more than {_MAX_LINES} lines; the maximum is {max_items} items"
            raise InvalidInput(message)
        lines = [line for line in body.split(b"\n") if line.strip()]
        _check_count(len(lines), max_items)
        return Batch([self._line(line) for line in lines], look_closely=True)

    def _line(self, line: bytes) -> Item | Malformed:
        try:
            check_members(line)
            return self._loose(check_body(line))
        except InvalidInput as error:
            return Malformed(None, {}, [error.message.replace("The body", "The line")])
        except msgspec.DecodeError as error:
            return Malformed(None, {}, [f"The line is not valid JSON: {_reason(error)}"])

    def _loose(self, raw: bytes | Raw) -> Item | Malformed:
        if has_bad_text(raw):
            members = self._right_members(raw)
            return Malformed(_usable_id(members.get("externalId")), {}, [_BAD_TEXT])
        try:
            return self._one.decode(raw)
        except msgspec.ValidationError:
            return self._malformed(raw)

    def _right_members(self, raw: bytes | Raw) -> dict[str, Any]:
        try:
            sent = _MEMBERS.decode(raw)
        except msgspec.ValidationError:
            return {}
        return {
            name: value
            for name in self._item.__struct_fields__
            if name in sent and (value := self._member(name, sent[name])) is not None
        }

    def _member(self, name: str, raw: Raw) -> Any:
        """The member's value when it is of the right type, else None."""
        text = bytes(raw)
        if text == b"null":
            return None
        if name == self._object_member:
            return raw if text[:1] == b"{" else None
        if name == "value":
            return raw
        return msgspec.json.decode(raw, type=str) if text[:1] == b'"' else None

    def _malformed(self, raw: bytes | Raw) -> Malformed:
        try:
            sent = _MEMBERS.decode(raw)
        except msgspec.ValidationError:
            return Malformed(None, {}, [f"Item must be an object, not {type_name(bytes(raw))}"])
        members = self._right_members(raw)
        problems = []
        for name in self._item.__struct_fields__:
            absent = name not in sent or bytes(sent[name]) == b"null"
            if name in members or (absent and name in self._optional):
                continue
            if absent:
                problems.append(f'Missing required field: "{name}"')
            else:
                wanted = "an object" if name == self._object_member else "a string"
                problems.append(
                    f'Field "{name}" must be {wanted}, not {type_name(bytes(sent[name]))}'
                )
        return Malformed(_usable_id(members.get("externalId")), members, problems)


ENTITIES: Final = ItemShape(
    EntityItem, object_member="data", taken_apart=True, optional=frozenset()
)
EVENTS: Final = ItemShape(
    EventItem, object_member="data", optional=frozenset({"occurredAt", "idempotencyKey"})
)
STATES: Final = ItemShape(StateItem, object_member=None, optional=frozenset({"observedAt"}))


def json_object(body: bytes) -> dict[str, Raw]:
    """The members of a body that must be a JSON object. Raises `InvalidInput`."""
    body = check_body(body)
    check_members(body)
    try:
        return _MEMBERS.decode(body)
    except msgspec.ValidationError:
        message = f"The body must be a JSON object, not {type_name(body)}"
        raise InvalidInput(message) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed_json(error) from None


def state_members(body: bytes) -> dict[str, Raw]:
    """The members of a single state's body: `{"value": …}`, or the value itself.

    An object is taken for the first form when it has `value` and nothing beyond `observedAt`.
    Raises `InvalidInput`.
    """
    body = check_body(body)
    try:
        value = _ANY_VALUE.decode(body)
        if bytes(value)[:1] == b"{":
            members = _MEMBERS.decode(body)
            if "value" in members and members.keys() <= {"value", "observedAt"}:
                return members
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed_json(error) from None
    return {"value": value}


def batch_output(text: str) -> BatchResult:
    """The result that `encode.batch_output` has written."""
    output = msgspec.json.decode(text, type=BatchOut)
    return BatchResult(
        output.succeeded,
        [ItemError(one.index, one.externalId, one.code, one.message) for one in output.errors],
        0 if output.duplicates is UNSET else output.duplicates,
    )


def id_problem(name: str, text: str, max_chars: int = MAX_EXTERNAL_ID_CHARS) -> str | None:
    """What is wrong with an id that the operator chose: its length or its characters (W9)."""
    if not 1 <= len(text) <= max_chars:
        return f'Field "{name}" must have 1 to {max_chars} characters, not {len(text)}'
    if _CONTROL.search(text):
        return f'Field "{name}" must not have control characters'
    return None


def plain_ids(texts: Sequence[str]) -> bool:
    """Whether all ids are right at a glance, as nearly all are; False says that `id_problem` must look."""
    if not texts:
        return True
    sizes = set(map(len, texts))
    return 0 not in sizes and max(sizes) <= MAX_EXTERNAL_ID_CHARS and "".join(texts).isprintable()


def type_name(json: bytes) -> str:
    """What kind of JSON value this is, in words."""
    first = json.strip()[:1].decode("ascii", "replace")
    if first == "n":
        return "null"
    return _TYPE_NAMES.get("t" if first == "f" else first, "a number")


def malformed_json(error: Exception) -> InvalidInput:
    """The answer to a body that is not JSON. The parser's words hold a position and no content."""
    return InvalidInput(f"The body is not valid JSON: {_reason(error)}")


def _reason(error: Exception) -> str:
    text = str(error).removeprefix("JSON is malformed: ")
    return text[:1].lower() + text[1:]


def _usable_id(external_id: str | None) -> str | None:
    if external_id is None or id_problem("externalId", external_id):
        return None
    return external_id


def _may_have_mask(body: bytes) -> bool:
    # A byte is found, or not, thirty times as fast as a word.
    return body.find(b"[", 1) > 0 and MASK in body


def _check_count(count: int, max_items: int) -> None:
    if count == 0:
        message = f"The batch is empty; send 1 to {max_items} items"
        raise InvalidInput(message)
    if count > max_items:
        message = f"The batch has {count} items; the maximum is {max_items}"
        raise InvalidInput(message)
