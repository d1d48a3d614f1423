"""Hashes of files and values, by which changes are recognised."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

DIGEST = 16  # bytes of a digest


def digest(*parts: bytes) -> bytes:
    """The 16-byte blake2b digest of `parts`, each with its length in front."""
    return digest_all(parts)


def digest_all(parts: Iterable[bytes]) -> bytes:
    """As `digest`, for parts that need not all be in memory."""
    h = hashlib.blake2b(digest_size=DIGEST)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.digest()


def seed_from(*parts: bytes) -> int:
    """A seed that follows from content alone, never from its name or its place in a list; below 2**64."""
    return int.from_bytes(digest(*parts)[:8], "little")


def sha256(path: Path) -> str:
    """The sha256 of a file, or of a folder's names and contents in sorted order, as hex digits."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for item in sorted(item for item in path.rglob("*") if item.is_file()):
        total.update(f"{item.relative_to(path).as_posix()} {sha256(item)}\n".encode())
    return total.hexdigest()


def short_hash(text: str) -> str:
    """Twelve hex digits that stand for `text` in a file name."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
