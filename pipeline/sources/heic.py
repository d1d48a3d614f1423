"""A phone's HEIC decoded tile by tile: libheif unpacks the whole picture at once, which may be too large for memory.

Each tile is an image of its own in the file, but libheif decodes only the one that the file calls its main image. So
it is given the file with one tile after the other as that.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

SMALLEST = 256  # pixels of a tile's side: opening a file for each of very many would take too long,
COPIED = 1 << 34  # and so would copying it: bytes for all tiles
MOST = 1 << 16  # boxes in one, and items with properties
HIDDEN = 1  # a flag of an item: it is not shown by itself


class Tiles(NamedTuple):
    """The tiles of a file's main image.

    `numbers` are their items, row by row; `flags` where the file has the flags of each item. `main` is where it names
    its main image, as a number of this `form` of struct. The whole is shown turned by `turn` quarters counterclockwise.
    """

    numbers: list[int]
    flags: dict[int, int]
    main: int
    form: str
    turn: int


def tiles(data: bytes) -> Tiles | None:
    """The tiles of a HEIC; None where its main image has none, is not made of them alone, or of very many."""
    try:
        return _tiles(data)
    except (struct.error, IndexError, KeyError, StopIteration, ValueError):
        return None


def reduced(data: bytes, size: tuple[int, int], scale: int) -> NDArray[np.uint8]:
    """The main image, whose (width, height) is `size`, at 1/`scale` of it: RGB u8 [height // scale, width // scale, 3].

    Raises: ValueError when there are no tiles or they do not fit together, or what libheif raises for a damaged one.
    """
    if (found := tiles(data)) is None:
        raise ValueError("no tiles")
    width, height = size if found.turn % 2 == 0 else size[::-1]
    out = np.empty((height // scale, width // scale, 3), np.uint8)
    given, side = bytearray(data), (0, 0)
    for number, item in enumerate(found.numbers):
        struct.pack_into(found.form, given, found.main, item)
        given[found.flags[item]] &= ~HIDDEN
        tile = pillow_heif.open_heif(bytes(given))
        side = side if number else tile.size
        columns, rows = -(-width // side[0]), -(-height // side[1])
        if tile.size != side or min(side) < SMALLEST or side[0] % scale or side[1] % scale or tile.mode != "RGB":
            raise ValueError(f"a tile of {tile.size[0]}x{tile.size[1]} pixels, mode {tile.mode}")
        if columns * rows != len(found.numbers):
            raise ValueError(f"{len(found.numbers)} tiles of {side[0]}x{side[1]} pixels")
        small = np.asarray(Image.fromarray(np.asarray(tile)).reduce(scale))
        top, left = number // columns * side[1] // scale, number % columns * side[0] // scale
        place = out[top : top + len(small), left : left + small.shape[1]]
        place[:] = small[: place.shape[0], : place.shape[1]]
    return np.rot90(out, found.turn)


def _tiles(data: bytes) -> Tiles | None:
    start, stop = next(place for kind, place in _boxes(data, 0, len(data)) if kind == b"meta")
    inside = dict(_boxes(data, start + 4, stop))
    main, long = inside[b"pitm"][0] + 4, data[inside[b"pitm"][0]] > 0
    (number,) = struct.unpack_from(form := ">I" if long else ">H", data, main)
    start, stop = inside[b"iinf"]
    kinds, flags = {}, {}
    for _, (at, _) in _boxes(data, start + (8 if data[start] else 6), stop):
        item, kind = struct.unpack_from(">I2x4s" if data[at] > 2 else ">H2x4s", data, at + 4)
        kinds[item], flags[item] = kind, at + 3
    properties = _properties(data, inside[b"iprp"], number)
    turns = [data[at] & 3 for kind, at in properties if kind == b"irot"]
    if kinds[number] != b"grid" or any(kind in (b"imir", b"clap") for kind, _ in properties):
        return None
    start, stop = inside[b"iref"]
    letter = "I" if data[start] else "H"
    for kind, (at, _) in _boxes(data, start + 4, stop):
        owner, count = struct.unpack_from(f">{letter}H", data, at)
        if kind == b"dimg" and owner == number:
            numbers = list(struct.unpack_from(f">{count}{letter}", data, at + struct.calcsize(f">{letter}H")))
            usable = numbers and len(numbers) * len(data) <= COPIED and {kinds[item] for item in numbers} == {b"hvc1"}
            return Tiles(numbers, flags, main, form, sum(turns) % 4) if usable else None
    return None


def _properties(data: bytes, where: tuple[int, int], number: int) -> list[tuple[bytes, int]]:
    """The properties of an item, as kinds and where they begin, in the order in which they apply."""
    inside = dict(_boxes(data, *where))
    every = [(kind, place[0]) for kind, place in _boxes(data, *inside[b"ipco"])]
    at = inside[b"ipma"][0]
    item, link = ">IB" if data[at] else ">HB", ">H" if data[at + 3] & 1 else ">B"
    last = 0x7FFF if data[at + 3] & 1 else 0x7F  # the highest bit says whether a property may be ignored
    (items,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(min(items, MOST)):
        owner, count = struct.unpack_from(item, data, at)
        at += struct.calcsize(item)
        links = [struct.unpack_from(link, data, at + i * struct.calcsize(link))[0] & last for i in range(count)]
        at += count * struct.calcsize(link)
        if owner == number:
            return [every[i - 1] for i in links]
    return []


def _boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The kind of each box, and from where to where its content goes. Raises: ValueError when one does not fit."""
    for _ in range(MOST):
        if start + 8 > stop:
            break
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 16 if size == 1 else 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
        end = stop if size == 0 else start + size
        if not head <= end - start <= stop - start:
            raise ValueError("a box that does not fit")
        yield kind, (start + head, end)
        start = end
