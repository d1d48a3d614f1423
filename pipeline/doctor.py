"""Says what this machine has: versions, weights, disk, memory, GPU; to be pasted into a bug report."""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

from pipeline import weights
from pipeline.context import Context

PACKAGES = ("torch", "torchvision", "facexlib", "numpy", "h5py", "opencv-python-headless", "webdataset", "safetensors")


def report(ctx: Context) -> str:
    """Return a line each for the program, the libraries, the weights, the disk, the memory and the device."""
    states = {name: weights.local(name) is not None for name, weight in weights.REGISTRY.items() if not weight.optional}
    missing = [name for name, have in states.items() if not have]
    absent = f"; missing: {', '.join(missing)} (`hypernst weights fetch`)" if missing else ""
    lines = {
        "hypernst": f"{_version('hypernst')}, profile {ctx.profile.name}, engine {ctx.engine}",
        "python": f"{platform.python_version()} on {platform.platform()}",
        "libraries": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "weights": f"{len(states) - len(missing)} of {len(states)} in {weights.folder()} and {weights.SHIPPED}{absent}",
        "disk": ", ".join(f"{free / 1e9:.1f} GB free at {place}" for place, free in _free(ctx.cache, ctx.run).items()),
        "memory": _memory(),
        "device": _device(),
    }
    return "\n".join(f"{name:<11}{text}" for name, text in lines.items())


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


def _memory() -> str:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    return f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of it unused"


def _device() -> str:
    try:
        import torch

        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    except (ImportError, OSError) as error:
        return f"torch cannot be imported ({error}); run `make setup`"
    return f"{os.cpu_count()} CPU cores; GPU: {', '.join(gpus) or 'none'}"
