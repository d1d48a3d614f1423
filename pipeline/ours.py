"""What is this program's in a cache folder, by name and mark. Nothing else in one is removed, moved or emptied.

Among the user's images neither this program's files nor the system's are read.

Only the standard library is needed here, so that `make clean` works without an environment.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_plain, temporary_of

COLLECTIONS = ("content", "style")
DIRECTIONS = "directions"  # the collection of generated faces that semantic directions are found in
# a cache file each; its parts and volumes lie in <name>.parts, <name>.volumes
CACHES = ("images", "latents", "parses", "masks", "aladin", "scores", "edits")
PORTRAITS = "portraits"  # the folder of single portraits, each of them a small collection
STUDIO, SESSION = "studio", "session.json"  # the folder of the page's own portraits, and what its pages are known by
PORTRAIT = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}")
HOLDS = (".parts", ".volumes")  # folders beside a cache file, with files of rows
# Beside a collection's caches: how each of them begins, if anything is in it.
NOTES = {"rejects.jsonl": b'{"key": ', ".sources.json": b'{"archives": ', ".sources.jsonl": b'{"folder": '}
VERIFIED = ".verified.json"  # which files `verify` found sound
INDEX, SAMPLES, LOCK = "index.json", "samples.json", ".lock"
SHARD = re.compile(rf"(?:{'|'.join(COLLECTIONS)})-(?:train|test)-\d{{6,}}\.tar")
FIRST = re.compile(rb"[0-9a-z_-]+\.jpg\0")  # the name of a shard's first member
PART = re.compile(r"\d{6,}\.h5")  # a part or a volume
HDF5, HEAD = b"\x89HDF\r\n\x1a\n", 4096  # the mark of HDF5; a cache's provenance starts within its first bytes
# What an evaluation, a gallery and a training leave in a folder: files that are there then, and the images beside them.
PRETRAINED = ("faces.png", "reconstructions.png")
RUN_PAGES = ("index.html", "model-card.html")
RESULTS: tuple[tuple[set[str], tuple[str, ...]], ...] = (
    ({"results.json", "table.md"}, ("cells/*.jpg", "evaluation.html", "index.html")),
    ({"gallery.stamp"}, ("cells/*.jpg", "gallery.html", "sheet.png", *RUN_PAGES)),
    ({"log.jsonl"}, ("grids/step-*.png", "training.html", "checkpoint.safetensors", *RUN_PAGES, *PRETRAINED)),
)
SYSTEM = {
    "@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "#recycle", "#snapshot", "$recycle.bin",
    "recycler", "recycled", "system volume information", "found.000", "lost+found", "__macosx", "network trash folder",
    "temporary items", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
}  # fmt: skip
INDEX_MARK, LOCK_MARK, SESSION_MARK = b'{"members"', b'{"pid"', b'{"session"'
VERIFIED_MARK = b'{\n"verified"'
# What a PNG that this program generated has right behind its header: IPTC's mark of such images, in XMP.
XMP = "XML:com.adobe.xmp"
GENERATED = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
)
_GENERATED = f"iTXt{XMP}\0\0\0\0\0{GENERATED}".encode()
PNG_HEADER = 33  # bytes of a PNG before the chunk that follows its header


def is_cache_name(relative: Path) -> bool:
    """Whether a stage would write a cache file, part or volume under this name, seen from its collection's folder."""
    if PART.fullmatch(relative.name):
        return str(relative.parent) in {f"{name}{kind}" for name in CACHES for kind in HOLDS}
    return str(relative) in {f"{name}.h5" for name in CACHES}


def is_shard_name(name: str) -> bool:
    """Whether the packing of shards would give a tar this name."""
    return SHARD.fullmatch(name) is not None


def is_shard(path: Path) -> bool:
    """Whether a tar begins as our shards do: with the image of a sample."""
    head = _head(path)
    return head[257:262] == b"ustar" and FIRST.match(head) is not None


def is_index(path: Path) -> bool:
    """Whether a file begins as the index of our shards does."""
    return _head(path).startswith(INDEX_MARK)


def is_lock(content: bytes) -> bool:
    """Whether a lock file of ours could hold this: nothing, or who holds it."""
    return not content or content.startswith(LOCK_MARK)


def samples(folder: Path) -> tuple[Any, list[Path]]:
    """The recipe in the samples.json of `folder` and the images that it lists; (None, []) where it tells nothing."""
    try:
        told = json.loads(read_plain(folder / SAMPLES))
        recipe, names = told["recipe"], [Path(name) for name in told["files"]]
    except (OSError, UserError, ValueError, KeyError, TypeError, RecursionError):
        return None, []
    inside = [name for name in names if len(name.parts) == 2 and name.parts[0] in COLLECTIONS and name.name != ".."]
    return recipe, [folder / name for name in inside]


def files(cache: Path) -> Iterator[Path]:
    """Every file of ours in the folder `cache`, those of measured and single portraits too. Links are not ours."""
    studio = cache / STUDIO
    for base in (cache, cache / "quality", cache / PORTRAITS, studio, studio / PORTRAITS):
        there = _is_folder(base, base == cache) and _is_folder(base.parent, base.parent != studio)
        if base.name == PORTRAITS and base != cache:
            found = tuple(path for place in portraits(base.parent) for path in _collection(place)) if there else ()
        elif base == studio:
            found = tuple(path for path in (base / SESSION,) if there and _head(path).startswith(SESSION_MARK))
        else:
            found = (*_caches(base), *_shards(base), *_samples(base)) if there else ()
        yield from (path for path in found if path.is_file() and not path.is_symlink())
        for path in base.glob(f".*{VERIFIED[1:]}*") if there and base == cache else ():
            mine = path.name == VERIFIED and _head(path).startswith(VERIFIED_MARK)
            if path.is_file() and not path.is_symlink() and (mine or temporary_of(path.name) == VERIFIED):
                yield path
        if (base / LOCK).is_file() and not (base / LOCK).is_symlink() and is_lock(_head(base / LOCK)):
            yield base / LOCK


def folders(cache: Path) -> list[Path]:
    """The folders of ours in the folder `cache`, inner ones first; they may hold other things as well."""
    found: list[Path] = []
    for base in (cache / "quality", cache):
        samples = base / "samples"
        inner = [*(samples / name for name in COLLECTIONS), *_unfinished(samples)]
        collections = (*COLLECTIONS, DIRECTIONS)
        inner += [base / name / f"{stem}{kind}" for name in collections for stem in CACHES for kind in HOLDS]
        found += [*inner, *(base / name for name in (*collections, "shards", "samples"))]
    for base in (cache / STUDIO, cache):
        found += [*portraits(base), base / PORTRAITS] if _is_folder(base, base == cache) else []
    found += [cache / "quality", cache / STUDIO]
    return [folder for folder in found if _is_folder(folder) and (_is_folder(folder.parent, folder.parent == cache))]


def portraits(cache: Path) -> list[Path]:
    """The folders of single portraits in the folder `cache`."""
    return [path for path in _inside(cache / PORTRAITS) if PORTRAIT.fullmatch(path.name) and _is_folder(path)]


def of_portrait(place: Path) -> list[Path]:
    """The files in one of the folders of `portraits` that have a name of ours, damaged or not."""
    return [path for path in _inside(place) if is_cache_name(Path(_meant(path))) and not path.is_dir()]


def _caches(base: Path) -> Iterator[Path]:
    return (path for name in (*COLLECTIONS, DIRECTIONS) for path in _collection(base / name))


def _collection(collection: Path) -> Iterator[Path]:
    for place in (collection, *(collection / f"{name}{kind}" for name in CACHES for kind in HOLDS)):
        for path in _inside(place):
            meant = path.relative_to(collection).with_name(_meant(path))
            cache = is_cache_name(meant) and (temporary_of(path.name) or _is_cache(path))
            if cache or (str(meant) in NOTES and (temporary_of(path.name) or _is_note(path, NOTES[str(meant)]))):
                yield path


def _shards(base: Path) -> Iterator[Path]:
    for path in _inside(base / "shards"):
        name = _meant(path)
        mine = (is_shard_name(name) and is_shard(path)) or (name == INDEX and is_index(path))
        if mine or ((is_shard_name(name) or name == INDEX) and temporary_of(path.name)):
            yield path


def _samples(base: Path) -> Iterator[Path]:
    folder = base / "samples"
    if _is_folder(folder):
        recipe, listed = samples(folder)
        yield from (path for path in listed if _is_folder(path.parent))
        yield from (path for unfinished in _unfinished(folder) for path in _inside(unfinished))
        if recipe is not None:
            yield folder / SAMPLES


def _unfinished(samples: Path) -> list[Path]:
    """Folders in which a killed run was drawing or choosing samples, inner ones first."""
    tops = [path for path in _inside(samples) if temporary_of(path.name) == samples.name and _is_folder(path)]
    return [path for path in (*(top / name for top in tops for name in COLLECTIONS), *tops) if _is_folder(path)]


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if _is_folder(folder) else []


def _meant(path: Path) -> str:
    """The name without what a temporary file or one that was moved aside has besides."""
    return temporary_of(path.name) or re.sub(r"\.bad\d*$", "", path.name)


def _is_cache(path: Path) -> bool:
    head = _head(path)
    return head.startswith(HDF5) and b"provenance" in head


def _is_note(path: Path, mark: bytes) -> bool:
    head = _head(path).lstrip(b"\n")
    return head.startswith(mark) or (not head and path.is_file() and path.stat().st_size == 0)


def _head(path: Path) -> bytes:
    try:
        if path.is_symlink() or not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def _is_folder(path: Path, linked: bool = False) -> bool:
    return path.is_dir() and (linked or not path.is_symlink())


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or put there by a file system, a NAS or a desktop."""
    return name.startswith(".") or name.lower() in SYSTEM


def outputs(folder: str, names: Collection[str]) -> Iterator[str]:
    """What this program has put into `folder`, known by marks among the folder's `names`: images, shards and caches.

    Paths may lie in folders inside. Links are not ours.
    """
    place = Path(folder)
    for marks, patterns in RESULTS:
        if marks <= set(names):
            found = (path for pattern in patterns for path in place.glob(pattern))
            yield from (str(path) for path in found if not path.is_symlink())
    if SAMPLES in names:
        yield from map(str, samples(place)[1])
    shards = [name for name in names if name.endswith(".tar") and is_shard_name(name)]
    if shards and (place.name == "shards" or is_index(place / INDEX)):
        yield from (str(place / name) for name in shards)
    yield from (str(place / name) for name in names if name.endswith(".h5") and _is_cache(place / name))
    pngs = (os.path.join(folder, name) for name in names if name[-4:].lower() == ".png")  # noqa: PTH118 - may be many
    yield from filter(_is_generated, pngs)


def _is_generated(path: str) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        return os.read(handle, 1 << 10)[PNG_HEADER + 4 :].startswith(_GENERATED)
    except OSError:
        return False
    finally:
        os.close(handle)
