"""Keys and digests as arrays say what dicts of them say."""

import random

import numpy as np

from pipeline.caches.digests import Index, file_digest
from pipeline.caches.schema import Entry
from pipeline.hashing import digest, digest_all

KEYS = [("k" * (1 + i % 88))[: 1 + i % 88] + f"{i}"[-(88 - i % 88) :] for i in range(400)]
WHOLE = {key[:88]: digest(key.encode()) for key in KEYS}


def shuffled(keys: list[str]) -> dict[str, bytes]:
    """The digests of these keys in another order."""
    return {key: WHOLE[key] for key in random.Random(0).sample(keys, len(keys))}


def test_an_index_is_a_sorted_dict() -> None:
    index = Index.of(shuffled([*WHOLE]) | {"unread": b""})
    assert [*index] == sorted([*WHOLE, "unread"]) and len(index) == len(WHOLE) + 1
    assert all(index[key] == made for key, made in WHOLE.items()) and index["unread"] == b""
    assert "no" not in index and "zz" not in index and index.get("") is None and [*Index.of({})] == []
    assert Index.of({}).find(index.names).tolist() == [-1] * len(index)
    index.put({"unread": WHOLE[KEYS[7]], KEYS[8]: bytes(16)})
    assert index["unread"] == WHOLE[KEYS[7]] and index[KEYS[8]] == b""


def test_indices_are_joined_compared_and_digested_as_dicts_are() -> None:
    whole, names = Index.of(shuffled([*WHOLE])), [*WHOLE]
    some, others = Index.of(shuffled(names[:300])), Index.of(shuffled(names[200:]))
    assert {**some.common(others)} == {key: 2 * WHOLE[key] for key in names[200:300]}
    assert {**whole.common(whole)} == {key: 2 * made for key, made in WHOLE.items()}
    assert whole.holds(some) and not some.holds(whole) and not whole.holds(Index.of({names[0]: digest(b"other")}))
    assert [name.decode() for name in Index.union([some, others]).repeated().tolist()] == sorted(names[200:300])
    assert {**Index.union([some, Index.of(shuffled(names[300:]))])} == WHOLE == {**Index.union([whole])}
    expected = digest_all(part for key in sorted(WHOLE) for part in (key.encode(), WHOLE[key])).hex()
    rows = {key: Entry(0, row, b"", made) for row, (key, made) in enumerate(shuffled(names).items())}
    assert file_digest(rows | {"a": Entry(0, -1, b"", b"", "refused")}) == whole.file_digest() == expected
    assert Index(np.array([], "S88"), np.empty((0, 16), np.uint8)).file_digest() == digest_all([]).hex()
