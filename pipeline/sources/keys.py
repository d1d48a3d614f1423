"""Keys of the user's images: stable and unique whatever the files are called."""

# Plain strings: a Path a file would be half the time and memory of scanning 100,000.
# ruff: noqa: PTH122

import hashlib
import os
import re

KEY = re.compile(r"[0-9a-z_-]+")
KEY_LENGTH = 88  # with the longest suffix it still fits the 100 characters of a tar header


def key_of(path: str) -> str:
    """The key of a relative path, at most 88 characters of `[0-9a-z_-]`.

    `faces/anna-1.jpg` becomes `faces__anna-1`. Any name this would lose something of (capitals, spaces, dots, other
    suffixes than .jpg) gets 12 hex digits of its sha256 appended: no key depends on what else is in the folder.
    A file in an archive has the key it would have unpacked, the archive's own name being a folder.
    """
    stem = path.removesuffix(".jpg")
    parts = stem.split("/")
    plain = "__".join(parts)
    if path.endswith(".jpg") and len(plain) <= KEY_LENGTH and all(_is_plain(p) for p in parts):
        return plain
    slug = re.sub(r"[^0-9a-z]+", "-", path.removesuffix(os.path.splitext(path)[1]).lower()).strip("-")[:72]
    mark = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{slug}-{mark}" if slug else mark


def _is_plain(part: str) -> bool:
    return KEY.fullmatch(part) is not None and "__" not in part and not part.startswith("_") and not part.endswith("_")
