"""Says what this machine has and whether the profile can run on it: versions, weights, disk, memory, GPU."""

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline import device, files, weights
from pipeline.context import Context
from pipeline.weights.download import Package
from pipeline.weights.registry import Weight
from stages.train.memory import step_bytes

LIBRARIES = 1.0e9  # bytes that a process takes before any network is loaded
PACKAGES = ("torch", "torchvision", "facexlib", "numpy", "h5py", "opencv-python-headless", "fsspec", "safetensors")


def report(ctx: Context) -> str:
    """One line per subject: the program, the libraries, the weights, the disk, the memory and the device."""
    need = memory(ctx)
    names = weights.needed(ctx.profile)
    missing = [weights.find(name) for name in names if weights.local(name) is None]
    here = f"{len(names) - len(missing)} of the {len(names)} that profile {ctx.profile.name} needs are here"
    total, free = device.memory()
    lines = [
        ("hypernst", f"{_version('hypernst')}, profile {ctx.profile.name}, engine {ctx.engine}"),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("libraries", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
        ("weights", f"{here}, in {weights.folder()} and {weights.SHIPPED}"),
        *(("", f"missing: {weight.name}: {weights.how_to_get(weight)}") for weight in missing),
        ("disk", ", ".join(f"{free / 1e9:.1f} GB free at {at}" for at, free in _free(ctx.cache, ctx.run).items())),
        ("", _disk(missing)),
        ("memory", f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of it available"),
        (
            "",
            f"profile {ctx.profile.name} takes about {_gb(need.preprocessing)} to preprocess and "
            f"{_gb(need.training)} to train with one sample at a time",
        ),
        ("device", _device(need.training)),
    ]
    return "\n".join(f"{name:<11}{text}" for name, text in lines)


def _disk(missing: Sequence[Weight]) -> str:
    """Whether what is missing fits where weights are kept."""
    packages = {w.source for w in missing if isinstance(w.source, Package)}
    needed = sum(2.5 * package.size for package in packages) + sum(2 * w.mb * 1e6 for w in missing)
    free = shutil.disk_usage(_existing(weights.folder())).free
    verdict = "enough is free" if free > needed else f"NOT enough: {free / 1e9:.1f} GB are free"
    return f"the missing weights take about {needed / 1e9:.1f} GB while they are fetched: {verdict}"


def _gb(needed: float) -> str:
    """An amount of memory, and whether this machine has it."""
    total, _ = device.memory()
    verdict = "enough" if needed < total else f"NOT enough: this machine has {total / 1e9:.1f} GB"
    return f"{needed / 1e9:.1f} GB ({verdict})"


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


def _device(training: float) -> str:
    try:
        import torch

        gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        return f"torch cannot be imported ({error}); run `make setup`"
    small = "; NOT enough to train" if gpus and max(gpu.total_memory for gpu in gpus) < training else ""
    names = ", ".join(f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB" for gpu in gpus)
    return f"{os.cpu_count()} CPU cores; GPU: {names or 'none'}{small}"


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
