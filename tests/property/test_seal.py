"""A sealed record opens as what it was and where it was, or not at all (W49)."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from opdata.errors import SealBroken
from opdata.model import DataKey
from opdata.pii import Sealer, sealer_of

MASTER, SALT = bytes(range(32)), bytes(range(32, 64))


def sealer(master: bytes, key_id: int, operator_id: int, salt: bytes) -> Sealer:
    """That of an operator with one data key."""
    return sealer_of({1: master}, [DataKey(operator_id, key_id, 1, salt, None, 0)])


SEALER = sealer(MASTER, 1, 7, SALT)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
secrets = st.binary(max_size=200)


@given(st.lists(st.tuples(names, secrets), max_size=6))
def test_what_was_sealed_opens_as_it_was(pairs: list[tuple[str, bytes]]) -> None:
    sealed = SEALER.seal([name for name, _ in pairs], [secret for _, secret in pairs])
    assert len(sealed) == len(pairs)
    assert [SEALER.open(name, one) for (name, _), one in zip(pairs, sealed, strict=True)] == [
        secret for _, secret in pairs
    ]
    assert len(set(sealed)) == len(sealed)


@given(name=names, secret=st.binary(min_size=8, max_size=200))
def test_a_sealed_record_shows_nothing_of_the_secret(name: str, secret: bytes) -> None:
    [sealed] = SEALER.seal([name], [secret])
    assert secret not in sealed
    assert len(sealed) == 1 + 4 + 12 + len(secret) + 16


@given(name=names, secret=secrets, draw=st.data())
@settings(max_examples=180)
def test_one_changed_bit_breaks_the_seal(name: str, secret: bytes, draw: st.DataObject) -> None:
    [sealed] = SEALER.seal([name], [secret])
    at = draw.draw(st.integers(0, len(sealed) * 8 - 1))
    changed = bytearray(sealed)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises(SealBroken):
        SEALER.open(name, bytes(changed))


@given(name=names, secret=secrets, draw=st.data())
def test_a_record_cut_short_or_drawn_out_does_not_open(
    name: str, secret: bytes, draw: st.DataObject
) -> None:
    [sealed] = SEALER.seal([name], [secret])
    cut = draw.draw(st.integers(0, len(sealed) - 1))
    tail = draw.draw(st.binary(min_size=1, max_size=20))
    for changed in (sealed[:cut], sealed + tail, tail + sealed):
        with pytest.raises(SealBroken):
            SEALER.open(name, changed)


@given(st.binary(max_size=100))
def test_no_other_bytes_open(noise: bytes) -> None:
    for record in (noise, b"\x01\x00\x00\x00\x01" + noise):
        with pytest.raises(SealBroken):
            SEALER.open("p1", record)


@given(name=names, other=names, secret=secrets)
def test_a_record_opens_for_its_own_entity_alone(name: str, other: str, secret: bytes) -> None:
    assume(name != other)
    [sealed] = SEALER.seal([name], [secret])
    with pytest.raises(SealBroken):
        SEALER.open(other, sealed)


@pytest.mark.parametrize(
    "other",
    [
        sealer(MASTER, 1, 8, SALT),
        sealer(MASTER, 1, 77, SALT),
        sealer(MASTER, 2, 7, SALT),
        sealer(MASTER, 1, 7, bytes(32)),
        sealer(bytes(32), 1, 7, SALT),
    ],
    ids=["operator", "longer operator", "key id", "salt", "master key"],
)
@given(name=names, secret=secrets)
@settings(max_examples=18)
def test_a_record_opens_under_its_own_operator_and_key_alone(
    other: Sealer, name: str, secret: bytes
) -> None:
    [sealed] = SEALER.seal([name], [secret])
    with pytest.raises(SealBroken):
        other.open(name, sealed)
    [sealed] = other.seal([name], [secret])
    with pytest.raises(SealBroken):
        SEALER.open(name, sealed)


def test_the_parts_that_a_record_is_bound_to_cannot_run_into_each_other() -> None:
    """Operator 1 with entity `1x` is not operator 11 with entity `x`."""
    [sealed] = sealer(MASTER, 1, 1, SALT).seal(["1x"], [b"secret"])
    with pytest.raises(SealBroken):
        sealer(MASTER, 1, 11, SALT).open("x", sealed)


@given(st.lists(secrets.filter(lambda part: b"\0" not in part), min_size=1, max_size=4), secrets)
def test_a_fingerprint_is_of_its_parts_and_of_its_key(parts: list[bytes], last: bytes) -> None:
    mine = SEALER.fingerprint(*parts, last)
    assert mine == sealer(MASTER, 1, 7, SALT).fingerprint(*parts, last)
    assert len(mine) == 16
    assert mine != sealer(bytes(32), 1, 7, SALT).fingerprint(*parts, last)
    assert mine != sealer(MASTER, 1, 7, bytes(32)).fingerprint(*parts, last)
    assert mine != SEALER.fingerprint(*parts, last + b"x")
    assert mine != SEALER.fingerprint(b"x" + parts[0], *parts[1:], last)


def test_no_byte_of_a_record_can_be_changed_or_left_out() -> None:
    """Every position, the version, the key id and the nonce included."""
    own = sealer_of(
        {1: MASTER, 2: bytes(32)},
        [DataKey(7, key_id, 1 + key_id // 3, SALT, None, 0) for key_id in (1, 2, 3)],
    )
    [sealed] = own.seal(["p1"], [b"secret"])
    assert own.open("p1", sealed) == b"secret"
    for at in range(len(sealed)):
        for other in (sealed[at] ^ 1, sealed[at] ^ 0x80, 0, 1, 2, 3):
            if other != sealed[at]:
                with pytest.raises(SealBroken):
                    own.open("p1", sealed[:at] + bytes([other]) + sealed[at + 1 :])
        for cut in (sealed[:at], sealed[:at] + sealed[at + 1 :], sealed[at + 1 :]):
            with pytest.raises(SealBroken):
                own.open("p1", cut)


def test_a_record_opens_with_the_data_key_that_it_names() -> None:
    keys = [DataKey(7, key_id, 1, bytes([key_id % 256]) * 32, None, 0) for key_id in (1, 2, 300)]
    sealed = {
        key.key_id: sealer_of({1: MASTER}, keys[: at + 1]).seal(["p1"], [b"secret"])[0]
        for at, key in enumerate(keys)
    }
    assert [int.from_bytes(one[1:5], "big") for one in sealed.values()] == [1, 2, 300]
    own = sealer_of({1: MASTER}, keys)
    assert {own.open("p1", one) for one in sealed.values()} == {b"secret"}
    # Under the name of another of the operator's own keys it does not open.
    for one in sealed.values():
        for key_id in {1, 2, 300} - {int.from_bytes(one[1:5], "big")}:
            with pytest.raises(SealBroken):
                own.open("p1", one[:1] + key_id.to_bytes(4, "big") + one[5:])
