"""Import a published weights file: say what it is, check it, and keep its tensors as safetensors.

Where no hash of a file is published, the hash of the first import is recorded. Another file is then refused under the
same name, unless the user asks for it. A file that is fetched must have the published hash. What is written appears
whole or not at all.
"""

import contextlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files, hashing, weights
from pipeline.errors import UserError
from pipeline.weights import download
from pipeline.weights.registry import Weight
from stages.weights_import import identify
from stages.weights_import.kinds import NAMES, Part, article
from stages.weights_import.structure import sentence, structure

MB = 1_100_000  # bytes that a known file may have for each of its MB
ANY = 2 << 30  # bytes allowed for a file whose size is not known: more than any of them has


@dataclass(frozen=True)
class Imported:
    """An imported file: its network, where that lies now, and which other networks the file holds."""

    name: str
    part: Part
    place: Path
    tensors: int
    mb: float
    sha256: str
    others: tuple[str, ...]
    known: str = ""

    def __str__(self) -> str:
        known = self.known or "recorded; another file is refused under this name"
        lines = [
            f"{self.name}: {self.part}; {self.tensors} tensors, none missing, none unexpected",
            f"  kept as {self.place} ({self.mb:.0f} MB)",
            f"  the file's sha256 is {self.sha256}, {known}",
        ]
        lines += [f"  {note}" for note in self.part.notes]
        lines += [f"  the file also holds: {other}" for other in self.others]
        return "\n".join(lines)


def import_file(path: Path, name: str, *, replace: bool = False, kind: str = "") -> Imported:
    """Import the file as `name`: a registry name, a path ending in .safetensors, or "" to go by its content.

    From a file with several networks one is taken: that of `kind`, else that of the name's kind, else the first.
    Raises: UserError when the file is not what the name stands for, or the name is unknown (2); one line.
    """
    weight = weights.find(name) if name and "/" not in name else None
    parts = identify.read(path)
    try:
        weight, part = _choose(parts, weight, name, kind, path)
        if part.tensors:
            try:  # before the values: tensors of the right shapes cannot fill the memory
                structure(part.kind, part.tensors)
            except ValueError as error:
                raise UserError(sentence(error)) from error
        _check_values(part)
    except UserError as fault:
        raise UserError(f"{path}: {fault}", fault.status) from fault
    if weight is not None and not isinstance(weight.source, str):
        raise UserError(f"{weight.name}: comes from a package; run `hypernst weights fetch {weight.name}`", 2)
    place = Path(name) if weight is None else weights.cached(weight)
    if place.suffix != ".safetensors":
        raise UserError(
            f"{place}: imported weights are safetensors; expected a name that ends in .safetensors after --as", 2
        )
    digest = hashing.sha256(path)
    known = ledger().get(str(weight.name if weight else place), {})
    if known.get("source_sha256", digest) != digest and not replace:
        raise UserError(
            f"{path}: this is another file than {weight.name if weight else place} was first imported from "
            f"(sha256 {known['source_sha256'][:16]}… then, {digest[:16]}… now); use --replace to take this one"
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
    others = tuple(f"{other}; use `--part {other.kind}` to take it" for other in parts if other is not part)
    return Imported(
        shown, part, place, len(part.tensors), files.size(place) / 1e6, digest, others, _published(weight, digest)
    )


def _published(weight: Weight | None, digest: str) -> str:
    """How a file's sha256 compares with the published one; "" where none is published."""
    if weight is None or not weight.sha256:
        return ""
    return (
        "that of the published file"
        if digest == weight.sha256
        else (f"not that of the published file ({weight.sha256[:16]}…): its tensors fit, but they are others")
    )


def fetch_file(name: str) -> Path:
    """Fetch a file whose address is known, and import it; its path.

    Raises: UserError when `import_file` does, or when the file cannot be fetched by a program; it names the way out.
    """
    weight = weights.find(name)
    here = weights.local(name)
    if here is not None:
        return here
    if not weight.direct:
        return weights.path(name)
    with weights.held(weight.published):  # by what is written, not by the name
        here = weights.local(name)
        if here is not None:
            return here  # another process was faster, or took it from the same file
        target = weights.folder() / f"{weight.published}.part"
        try:
            download.address(str(weight.source), target, weight.mb * MB if weight.sha256 else ANY)
            if weight.sha256 and (digest := hashing.sha256(target)) != weight.sha256:
                raise UserError(
                    f"{weight.source}: this is another file than was published (sha256 {digest[:16]}…, expected "
                    f"{weight.sha256[:16]}…); if you know why, fetch it by other means and import it"
                )
            place = import_file(target, name).place
            for other in weights.REGISTRY.values():  # such as a discriminator beside its generator: no second download
                if other.direct and other.source == weight.source and weights.local(other.name) is None:
                    with contextlib.suppress(UserError):  # told to whoever asks for that one
                        import_file(target, other.name)
            return place
        finally:
            target.unlink(missing_ok=True)


def verify(name: str) -> str:
    """Check again what lies here under `name`: its bytes since the import, its structure, its values; one line.

    Raises: UserError when something is wrong with it.
    """
    weight = weights.find(name) if "/" not in name else None
    place = weights.path(name)
    known = ledger().get(name, {})
    digest = hashing.sha256(place)
    if known.get("place") == str(place) and known["sha256"] != digest:
        raise UserError(f"{place}: this file has changed since {name} was imported; import {known['source']} again")
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
        raise UserError(f"{place}: {sentence(error)}") from error
    first = "" if known else "; its hash is recorded from now on"
    if not known:
        _record(name, {"sha256": digest, "place": str(place), "source": place.name})
    return f"{name}: {part}, as it should be, sha256 {digest[:16]}…{first}"


def ledger() -> dict[str, dict[str, Any]]:
    """What was imported here: per name the file it came from, its sha256, and that of the weights made from it."""
    entries = files.read_json(weights.folder() / "imported.json")
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}


def _record(name: str, entry: dict[str, Any]) -> None:
    with weights.held("imported"):
        data = json.dumps(ledger() | {name: entry}, indent=1, sort_keys=True)
        files.write_atomic(weights.folder() / "imported.json", data.encode())


def _choose(
    parts: list[Part], weight: Weight | None, name: str, kind: str = "", path: Path = Path()
) -> tuple[Weight | None, Part]:
    """The part to take, and the registry's entry for it; of several that fit, the one published as `path` is called.

    Raises: UserError when there is none.
    """
    if kind:
        chosen = [part for part in parts if part.kind == kind]
        if not chosen:
            held = " or ".join(p.kind for p in parts)
            raise UserError(f"this is {_list(parts)}; --part is {kind!r}, expected {held}", 2)
        parts = chosen
    if weight is not None:
        part = next((part for part in parts if part.kind == weight.kind), None)
        if part is None:
            expected = article(NAMES.get(weight.kind, weight.what))
            raise UserError(f"this is {_list(parts)}; expected {expected} for {weight.name}")
        if wrong := {key: value for key, value in weight.expects.items() if part.facts.get(key, value) != value}:
            expected = ", ".join(f"{key} {value}" for key, value in wrong.items())
            raise UserError(f"this is {article(part)}; expected {expected} for {weight.name}")
        return weight, part
    if name:
        return None, parts[0]
    part = parts[0]
    known = [w for w in weights.REGISTRY.values() if w.kind == part.kind]
    fitting = [w for w in known if all(part.facts.get(key) == value for key, value in w.expects.items())]
    if len(fitting) > 1:
        fitting = [w for w in fitting if w.published and path.absolute().match(w.published)] or fitting
    if len(fitting) != 1:
        choice = f" one of {', '.join(w.name for w in known)}, or" if known else ""
        way_out = f"name what to keep it as with --as:{choice} a file of your own, `--as ./mine.safetensors`"
        raise UserError(f"this is {article(part)}; {way_out}", 2)
    return fitting[0], part


def _list(parts: list[Part]) -> str:
    return " with ".join(map(article, parts))


def _check_values(part: Part) -> None:
    """Raises: UserError when a tensor has values that are not finite."""
    import torch

    for name, tensor in part.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum(dtype=torch.float64))):
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                raise UserError(
                    f"this is {article(part)}, but {bad} of {tensor.numel()} values of {name} are NaN or infinite; "
                    "the file is damaged or its training failed; fetch it again"
                )


def _write(part: Part, place: Path, about: dict[str, Any]) -> None:
    from pipeline.training import checkpoint

    size = sum(t.numel() * t.element_size() for t in part.tensors.values())
    place.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place.parent).free
    if free < 1.05 * size:
        needed = math.ceil(1.05 * size / 1e6)
        raise UserError(f"{place.parent}: {free / 1e6:.0f} MB are free, {needed} MB are needed; free some space")
    checkpoint.write(place, part.tensors, {"about": json.dumps(about, sort_keys=True)})
