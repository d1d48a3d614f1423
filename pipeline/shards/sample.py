"""What the members of a sample say: the files of a shard that share a key, decoded and checked."""

import functools
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.errors import UserError

Decoded = dict[str, Any]
Buffer = bytes | memoryview
REPAIR = "run `hypernst verify --repair`, then `hypernst shards`"


def fields(sample: Mapping[str, Buffer], key: str) -> Iterator[tuple[str, Any]]:
    """The name and value of each part of a sample, one decoded after the other: key and json, which is text, and the
    arrays image u8 [H,W,3], region u8 [H,W], latent f32 [L,D], codes f32 [4,256]; the last two lie in `sample` still.

    Whoever takes each before asking for the next lets the decoder use the same memory again, which is then at hand.
    Raises: UserError when a member is missing, of another sample, or not what its name says.
    """
    import cv2

    try:
        yield "key", key
        yield "json", _text_of(key, sample["json"])
        yield "image", _picture(cv2.imdecode(np.frombuffer(sample["jpg"], np.uint8), cv2.IMREAD_COLOR_RGB))
        yield "region", _picture(cv2.imdecode(np.frombuffer(sample["region.png"], np.uint8), cv2.IMREAD_UNCHANGED))
        yield "latent", _array(sample["latent.npy"])
        yield "codes", _array(sample["codes.npy"])
    except (KeyError, TypeError, ValueError, cv2.error) as e:
        raise UserError(f"sample {key!r}: damaged ({e}); {REPAIR}") from e


def decode(sample: Mapping[str, Buffer], key: str) -> Decoded:
    """The `fields` of a sample as a dict that shares nothing with it, and `meta`, what its json says."""
    found = dict(fields(sample, key))
    try:
        found["meta"] = json.loads(found.pop("json"))
    except ValueError as e:
        raise UserError(f"sample {key!r}: damaged ({e}); {REPAIR}") from e
    return found | {name: found[name].copy() for name in ("latent", "codes")}


def _text_of(key: str, data: Buffer) -> str:
    """A sample's json as text; hardly anyone wants its numbers, so it is parsed only if it does not name `key` as ours.

    Raises: ValueError, KeyError or TypeError when it is that of another sample, or none.
    """
    text = str(data, "utf-8")
    if f'"key": "{key}"' not in text and (found := json.loads(text)["key"]) != key:
        raise ValueError(f"its json is that of {found!r}")
    return text


def _picture(found: np.ndarray | None) -> np.ndarray:
    if found is None:
        raise ValueError("a picture in it does not decode")
    return found


def _array(data: Buffer) -> np.ndarray:
    """What a .npy file holds, where it lies; raises ValueError for anything that would need unpickling."""
    start = 10 + int.from_bytes(data[8:10], "little")
    dtype, shape = _header(bytes(data[:start]))
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


@functools.lru_cache(64)
def _header(data: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Dtype and shape; remembered, as all samples share theirs and numpy takes longer over it than over the rest."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("a .npy file of another version than 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject:
        raise ValueError("a .npy file with objects or in Fortran order")
    return dtype, shape
