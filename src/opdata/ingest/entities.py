"""Entities: fingerprinted at once, and checked, masked and sealed when the store asks for them (W26)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Final

import msgspec
from msgspec import Raw

from opdata.ids import new_entity_ids
from opdata.ingest.checked import Checked
from opdata.ingest.problems import (
    decode_object,
    id_problems,
    is_object,
    item_error,
    malformed_error,
    taken_apart,
)
from opdata.model import ItemError
from opdata.pii import Sealer
from opdata.storage.work import EntityColumns, UpsertEntities
from opdata.templates import Template, missing_fields
from opdata.wire.decode import Batch, Malformed, all_well_formed, plain_ids
from opdata.wire.schema import EntityItem

_TAKEN_APART_BYTES: Final = 1 << 20
_objects: Final = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_name_and_index: Final = itemgetter(0, 1)


def check_entities(batch: Batch[EntityItem], template: Template, sealer: Sealer) -> Checked:
    """Fingerprint entities; those that the store does not have so already are checked when it asks (W26).

    What is stored under the fingerprint of an item was checked, by the same template, when it was stored.
    """
    check = _EntityCheck(batch, template, sealer)
    return Checked(check.work(), len(batch.items), check.problems)


class _EntityCheck:
    """Checks entities as a store asks for them; of several under one name the last good one (W24)."""

    def __init__(self, batch: Batch[EntityItem], template: Template, sealer: Sealer) -> None:
        self._template = template
        self._sealer = sealer
        self._look_closely = batch.look_closely
        self.problems: dict[int, ItemError] = {}
        items = batch.items
        named: list[tuple[str, int, EntityItem]] = []
        if all_well_formed(items):
            names = [item.externalId for item in items]
            if plain_ids(names) and len(set(names)) == len(names):
                named = list(zip(names, range(len(names)), items, strict=True))
        if not named:
            named = self._good_ones(items)
        named.sort(key=_name_and_index)
        self._names = [name for name, _, _ in named]
        self._indices = [index for _, index, _ in named]
        self._items = [item for _, _, item in named]

    def work(self) -> UpsertEntities:
        """The entities by name."""
        fingerprint, mark = self._sealer.fingerprint, self._template.mark.hex().encode()
        fingerprints = [
            fingerprint(mark, item.entityType.encode(), item.data) for item in self._items
        ]
        return UpsertEntities(self._names, fingerprints, self._make)

    def _make(self, positions: Sequence[int]) -> EntityColumns:
        """See `UpsertEntities`."""
        fine: list[int] = []
        data: list[bytes] = []
        secrets: list[bytes | None] = []
        for some in self._in_megabytes(positions):
            passed, objects = self._that_pass(some)
            shown, secret = self._split([self._items[at].entityType for at in passed], objects)
            fine += passed
            data += shown
            secrets += secret
        return EntityColumns(
            positions=fine,
            entity_ids=new_entity_ids(len(fine)),
            entity_types=[self._items[at].entityType for at in fine],
            data=data,
            sealed=self._seal([self._names[at] for at in fine], secrets),
        )

    def _in_megabytes(self, positions: Sequence[int]) -> Iterator[Sequence[int]]:
        """The positions, those of a megabyte of text at a time: taken apart it is many times as large."""
        some: list[int] = []
        room = _TAKEN_APART_BYTES
        for at in positions:
            room -= memoryview(self._items[at].data).nbytes
            if room < 0 and some:
                yield some
                some = []
                room = _TAKEN_APART_BYTES
            some.append(at)
        if some:
            yield some

    def _that_pass(self, positions: Sequence[int]) -> tuple[list[int], list[dict[str, Raw]]]:
        """The positions of those that pass, with their `data` taken apart; problems of the others are noted."""
        items = [self._items[at] for at in positions]
        try:
            objects: Sequence[dict[str, Raw] | None] = _objects(
                b"[%b]" % b",".join([item.data for item in items])
            )
        except msgspec.ValidationError:
            objects = [decode_object(item.data) if is_object(item.data) else None for item in items]
        fine: list[int] = []
        passed: list[dict[str, Raw]] = []
        for at, item, data in zip(positions, items, objects, strict=True):
            rule = self._template.entity_rules.get(item.entityType)
            if (
                data is None
                or rule is None
                or self._look_closely
                or not data.keys() >= rule.required
            ):
                problems = _entity_problems(msgspec.structs.asdict(item), self._template, data)
                if problems or data is None:
                    self._note(self._indices[at], item.externalId, problems)
                    continue
            fine.append(at)
            passed.append(data)
        return fine, passed

    def _split(
        self, types: Sequence[str], objects: Sequence[dict[str, Raw]]
    ) -> tuple[Sequence[bytes], Sequence[bytes | None]]:
        """The masked `data` of each, and what is to be sealed of it."""
        rules, kinds = self._template.entity_rules, set(types)
        if len(kinds) == 1:
            return rules[kinds.pop()].personal.split(objects)
        data: dict[int, bytes] = {}
        secrets: dict[int, bytes | None] = {}
        for kind in kinds:
            of_kind = [at for at, name in enumerate(types) if name == kind]
            shown, secret = rules[kind].personal.split([objects[at] for at in of_kind])
            data.update(zip(of_kind, shown, strict=True))
            secrets.update(zip(of_kind, secret, strict=True))
        everything = range(len(types))
        return [data[at] for at in everything], [secrets[at] for at in everything]

    def _seal(
        self, names: Sequence[str], secrets: Sequence[bytes | None]
    ) -> Sequence[bytes | None]:
        personal = [at for at, secret in enumerate(secrets) if secret is not None]
        sealed = self._sealer.seal(
            [names[at] for at in personal],
            [secret for secret in secrets if secret is not None],
        )
        if len(personal) == len(secrets):
            return sealed
        by_position = dict(zip(personal, sealed, strict=True))
        return [by_position.get(at) for at in range(len(secrets))]

    def _good_ones(
        self, items: Sequence[EntityItem | Malformed]
    ) -> list[tuple[str, int, EntityItem]]:
        """The last good item of each name, all of them checked; problems of the others are noted."""
        last: dict[str, tuple[int, EntityItem]] = {}
        for index, item in enumerate(items):
            if isinstance(item, Malformed):
                self.problems[index] = malformed_error(
                    index, item, _entity_problems, self._template
                )
            elif problems := _entity_problems(msgspec.structs.asdict(item), self._template):
                self._note(index, item.externalId, problems)
            else:
                last[item.externalId] = (index, item)
        return [(name, index, item) for name, (index, item) in last.items()]

    def _note(self, index: int, external_id: str, problems: list[str]) -> None:
        self.problems[index] = item_error(index, external_id, problems)


def _entity_problems(
    members: dict[str, object], template: Template, fields: dict[str, Raw] | None = None
) -> list[str]:
    """All that is wrong with an item; `fields` are its `data` where that was taken apart already."""
    problems = id_problems(members, "externalId")
    entity_type, data = members.get("entityType"), members.get("data")
    rule = template.entity_rules.get(entity_type) if isinstance(entity_type, str) else None
    if isinstance(entity_type, str) and rule is None:
        problems.append(template.unknown_entity_type(entity_type))
    if isinstance(data, Raw):
        problem = None
        if fields is None:
            fields, problem = taken_apart(data)
        if problem:
            problems.append(problem)
        elif rule is not None:
            problems += missing_fields(fields, rule.required_order)
            problems += rule.personal.mask_problems(fields)
    return problems
