"""Says what this machine has and whether the profile can run on it: versions, weights, disk, memory, GPU."""

import os
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pipeline import device, weights
from pipeline.context import Context
from pipeline.weights.download import Package
from pipeline.weights.registry import Weight

PACKAGES = ("torch", "torchvision", "facexlib", "numpy", "h5py", "opencv-python-headless", "webdataset", "safetensors")


def report(ctx: Context, preprocessing: float, training: float) -> str:
    """Return a line each for the program, the libraries, the weights, the disk, the memory and the device.

    The memory that the profile's two kinds of work take is given in bytes.
    """
    names = weights.needed(ctx.profile)
    missing = [weights.find(name) for name in names if weights.local(name) is None]
    here = f"{len(names) - len(missing)} of the {len(names)} that profile {ctx.profile.name} reads are here"
    total, free = device.memory()
    lines = [
        ("hypernst", f"{_version('hypernst')}, profile {ctx.profile.name}, engine {ctx.engine}"),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("libraries", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
        ("weights", f"{here}, in {weights.folder()} and {weights.SHIPPED}"),
        *(("", f"missing: {weight.name}: {weights.way_to(weight)}") for weight in missing),
        ("disk", ", ".join(f"{free / 1e9:.1f} GB free at {at}" for at, free in _free(ctx.cache, ctx.run).items())),
        ("", _disk(missing)),
        ("memory", f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of it available"),
        ("", f"profile {ctx.profile.name} takes about {preprocessing / 1e9:.1f} GB to preprocess{_fits(preprocessing)} "
             f"and {training / 1e9:.1f} GB to train with one sample at a time{_fits(training)}"),
        ("device", _device(training)),
    ]
    return "\n".join(f"{name:<11}{text}" for name, text in lines)


def _disk(missing: Sequence[Weight]) -> str:
    """Whether what is missing fits where weights are kept."""
    packages = {w.source for w in missing if isinstance(w.source, Package)}
    wanted = sum(2.5 * package.size for package in packages) + sum(2 * w.mb * 1e6 for w in missing)
    free = shutil.disk_usage(_existing(weights.folder())).free
    verdict = "enough" if free > wanted else f"NOT enough: {free / 1e9:.1f} GB are free"
    return f"the missing weights take about {wanted / 1e9:.1f} GB while they are brought: {verdict}"


def _fits(wanted: float) -> str:
    total, _ = device.memory()
    return " (enough)" if wanted < total else f" (NOT enough: this machine has {total / 1e9:.1f} GB)"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _free(*places: Path) -> dict[Path, int]:
    """Return the free bytes at each place, or at its nearest folder that exists."""
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
    told = ", ".join(f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB" for gpu in gpus)
    return f"{os.cpu_count()} CPU cores; GPU: {told or 'none'}{small}"
