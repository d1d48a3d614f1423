"""Hashes of files and values: what artefacts are recognised by."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(*parts: bytes) -> bytes:
    """16 bytes of blake2b over length-prefixed `parts`."""
    return digest_all(parts)


def digest_all(parts: Iterable[bytes]) -> bytes:
    """`digest` of parts that need not be in memory at once."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.digest()


def sha256(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's names and contents in sorted order, as hex digits."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for item in sorted(item for item in path.rglob("*") if item.is_file()):
        total.update(f"{item.relative_to(path).as_posix()} {sha256(item)}\n".encode())
    return total.hexdigest()


def short_hash(text: str) -> str:
    """Return twelve hex digits that stand for `text` in a file name."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
