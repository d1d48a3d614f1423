"""Keys of the user's images: stable and unique for any file names."""

# Paths are plain strings: one Path per file would take half the time and memory of a scan of 100,000 files.
# ruff: noqa: PTH122

import hashlib
import os
import re

KEY = re.compile(r"[0-9a-z_-]+")
_PART = "[0-9a-z-]+(_[0-9a-z-]+)*"  # so that no two paths give the same key
PLAIN = re.compile(rf"{_PART}(/{_PART})*\.jpg")
KEY_LENGTH = 88  # with the longest suffix it still fits the 100 characters of a tar header


def key_of(path: str) -> str:
    """The key of a relative path: at most KEY_LENGTH characters of `[0-9a-z_-]`.

    `faces/anna-1.jpg` becomes `faces__anna-1`. Where a name has anything else (capitals, spaces, dots, another suffix
    than .jpg), 12 hex digits of its sha256 are appended. So no key depends on the other files of the folder.
    A file in an archive has the key that it would have if a folder with the archive's name held it.
    """
    if PLAIN.fullmatch(path) and len(plain := path[: -len(".jpg")].replace("/", "__")) <= KEY_LENGTH:
        return plain
    slug = re.sub(r"[^0-9a-z]+", "-", path.removesuffix(os.path.splitext(path)[1]).lower()).strip("-")[:72]
    mark = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{slug}-{mark}" if slug else mark
