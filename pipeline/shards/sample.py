"""Decodes and checks the members of a sample: the files of a shard that share a key."""

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
    """Yield the name and the value of each field of a sample, decoded one after the other.

    These are key and json (both text), image u8 [H, W, 3], region u8 [H, W], latent f32 [L, D] and codes f32 [4, 256].
    The last two arrays are views of `sample`. Use each value before asking for the next one: then the decoder uses the
    same memory again.
    Raises: UserError when a member is missing, belongs to another sample, or does not decode.
    """
    import cv2

    try:
        yield "key", key
        yield "json", _text_of(key, sample["json"])
        yield "image", _decoded(cv2.imdecode(np.frombuffer(sample["jpg"], np.uint8), cv2.IMREAD_COLOR_RGB))
        yield "region", _decoded(cv2.imdecode(np.frombuffer(sample["region.png"], np.uint8), cv2.IMREAD_UNCHANGED))
        yield "latent", _array(sample["latent.npy"])
        yield "codes", _array(sample["codes.npy"])
    except (KeyError, TypeError, ValueError, cv2.error) as e:
        raise UserError(f"sample {key!r}: damaged ({e}); {REPAIR}") from e


def decode(sample: Mapping[str, Buffer], key: str) -> Decoded:
    """The `fields` of a sample as a dict of copies; `meta`, the parsed json, takes the place of `json`.

    Raises: UserError as `fields`.
    """
    decoded = dict(fields(sample, key))
    try:
        decoded["meta"] = json.loads(decoded.pop("json"))
    except ValueError as e:
        raise UserError(f"sample {key!r}: damaged ({e}); {REPAIR}") from e
    return decoded | {name: decoded[name].copy() for name in ("latent", "codes")}


def _text_of(key: str, data: Buffer) -> str:
    """A sample's json as text; it is parsed only when `key` is not found in the form in which we write it.

    Raises: ValueError, KeyError or TypeError when it belongs to another sample, or is no JSON.
    """
    text = str(data, "utf-8")
    if f'"key": "{key}"' not in text and (other := json.loads(text)["key"]) != key:
        raise ValueError(f"its json is that of {other!r}")
    return text


def _decoded(image: np.ndarray | None) -> np.ndarray:
    if image is None:
        raise ValueError("an image in it does not decode")
    return image


def _array(data: Buffer) -> np.ndarray:
    """The array in a .npy file, as a view. Raises: ValueError when it would need unpickling."""
    start = 10 + int.from_bytes(data[8:10], "little")
    dtype, shape = _header(bytes(data[:start]))
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


@functools.lru_cache(64)
def _header(data: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Dtype and shape in a .npy header; cached, as all samples share them and numpy reads headers slowly."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("a .npy file of another version than 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject:
        raise ValueError("a .npy file with objects or in Fortran order")
    return dtype, shape
