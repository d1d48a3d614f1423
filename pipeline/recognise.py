"""Says what a weights file is, by its bytes and the names in it, and takes its tensors out; nothing in it is run."""

import argparse
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import nvidia
from pipeline.errors import Fault

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 start
NAMES = {
    "stylegan2": "StyleGAN2 generator", "stylegan2-critic": "StyleGAN2 discriminator", "e4e": "e4e encoder",
    "psp": "pSp encoder", "w-encoder": "W-encoder", "hyperstyle": "HyperStyle hypernetwork",
    "farl": "FaRL face parser (TorchScript)", "aladin-vit": "ALADIN on ViT", "aladin-vgg": "ALADIN on VGG16",
    "bisenet": "BiSeNet face parser", "parsenet": "ParseNet face parser", "retinaface": "RetinaFace-R50",
    "retinaface-mobilenet": "RetinaFace-MobileNet0.25", "sae-patch": "Swapping Autoencoder patch discriminator",
    "sae-image": "Swapping Autoencoder image discriminator", "boundary": "semantic boundary",
    "arcface": "ArcFace IR-SE50 face recogniser",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One network of a file: its kind, its tensors in the published layout without prefix, what is known of them."""

    kind: str
    tensors: "Tensors"
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"{NAMES[self.kind]}" + (f" ({told})" if told else "")


def article(name: object) -> str:
    """A network's name, as part of a sentence."""
    return f"{'an' if str(name)[0] in 'aeioAEIO' else 'a'} {name}"


def read(path: Path) -> list[Part]:
    """The networks of a file, the one it is published for first. A TorchScript network has no tensors here.

    Raises: Fault, one line, saying what the file is instead.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(65536)
    except OSError as error:
        raise Fault(f"{path}: cannot be read ({error.strerror})", 2) from error
    try:
        return _parts(path, head, size)
    except Fault as fault:
        raise Fault(f"{path}: is {fault}") from fault


def _parts(path: Path, head: bytes, size: int) -> list[Part]:
    if not head:
        raise Fault("empty; fetch it again")
    if head.lstrip()[:1] == b"<":
        raise Fault(_page(head))
    if head.startswith(b"\x93NUMPY"):
        return [_boundary(path)]
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return of_state(_safetensors(path))
    if head.startswith(b"PK"):
        names = _zip_names(path, size)
        if any("/code/" in name for name in names):
            return [_script(path)]
        if not any(name.endswith("data.pkl") for name in names):
            raise Fault(f"a zip archive without a network ({', '.join(names[:3])}…); unpack it, import what is inside")
        return of_state(_torch(path, mmap=True))
    if head.startswith(LEGACY):
        return of_state(_torch(path, mmap=False))
    if head.startswith(b"\x80"):
        return of_pickle(nvidia.load(path))
    raise Fault(f"no weights file that is known here (it starts with {head[:8]!r}); expected PyTorch, safetensors, "
                "an NVIDIA pickle, TorchScript or a NumPy boundary")


def _page(head: bytes) -> str:
    text = head.decode("utf8", "replace")
    if "quota" in text.lower():
        return "a web page saying that the download quota is exceeded, not weights; try again a day later"
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
    told = f" ({' '.join(title[1].split())[:60]})" if title else ""
    return f"a web page{told}, not weights; open its address in a browser and download the file itself"


def _zip_names(path: Path, size: int) -> list[str]:
    try:
        with zipfile.ZipFile(path) as box:
            if damaged := box.testzip():
                raise Fault(f"damaged: {damaged} has another checksum; fetch it again")
            return box.namelist()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise Fault(f"truncated: a PyTorch file whose end is missing after {size} bytes; fetch it again") from error


def _torch(path: Path, mmap: bool) -> Any:
    """A PyTorch file's object, by torch's allow-list and argparse.Namespace, a bag of options that runs nothing."""
    import torch

    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch lets any error of a damaged file through
        text = " ".join(str(error).split())
        if asked := re.search(r"GLOBAL ([\w.]+)|(?:unrecognized function|unsupported class) (\S+)", text):
            raise Fault(f"a pickle that asks for {asked[1] or asked[2]}, {nvidia.REFUSED}") from error
        reason = text[:100] or type(error).__name__
        raise Fault(f"truncated or damaged ({type(error).__name__}: {reason}); fetch it again") from error


def _safetensors(path: Path) -> "Tensors":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Fault(f"a damaged safetensors file ({error}); fetch it again") from error


def _boundary(path: Path) -> Part:
    import numpy as np
    import torch

    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise Fault(f"a NumPy file that is damaged or holds objects ({error}); expected a boundary [1, 512]") from error
    if array.ndim != 2 or len(array) != 1 or array.dtype.kind != "f":
        raise Fault(f"a NumPy array {list(array.shape)} of {array.dtype}; expected a boundary [1, 512] of floats")
    return Part("boundary", {"direction": torch.from_numpy(array)}, {"dimensions": array.shape[1]})


def _script(path: Path) -> Part:
    """A TorchScript network; its classes are counted without running it, by the sizes of its tensors."""
    from pipeline.convert import script_shapes

    try:
        rows = {shape[0] for shape in script_shapes(path) if shape}
    except Exception:  # an archive may hold what the counting does not know; its name may tell then
        rows = set()
    known = rows & {11, 19}
    if len(known) != 1:
        known = {11} if "lapa" in path.name else {19} if "celebm" in path.name else set()
    return Part("farl", {}, {"classes": known.pop()} if known else {})


def of_pickle(found: Any) -> list[Part]:
    """The generator of an unpickled NVIDIA network."""
    return [_generator(nvidia.generator(found))]


def of_state(found: Any) -> list[Part]:
    """The networks of a PyTorch file's object. Raises: Fault, the rest of a sentence."""
    import torch

    if not isinstance(found, Mapping) or not found:
        raise Fault(f"a PyTorch file of a {type(found).__name__}; expected a dictionary of tensors")
    if isinstance(found.get("g_ema", found.get("g")), Mapping):
        own = _state(found.get("g_ema", found.get("g")))
        parts = [_generator(own | _average(found))]
        return parts + ([Part("stylegan2-critic", _state(found["d"]))] if isinstance(found.get("d"), Mapping) else [])
    if isinstance(found.get("state_dict"), Mapping):
        return _psp(_state(found["state_dict"]), _average(found), found.get("opts"))
    if all(isinstance(value, torch.Tensor) for value in found.values()):
        return _flat(_state(found))
    raise Fault(f"a PyTorch file of {_some(found)}, none of the known layouts; expected g_ema, state_dict or tensors")


def _psp(state: "Tensors", average: "Tensors", opts: Any) -> list[Part]:
    options = vars(opts) if isinstance(opts, argparse.Namespace) else opts if isinstance(opts, Mapping) else {}
    parts = []
    if hyper := _under(state, "hypernet."):
        parts.append(_hyperstyle(hyper))
    if encoder := _under(state, "encoder."):
        parts.append(_encoder(encoder | average, str(options.get("encoder_type", ""))))
    if decoder := _under(state, "decoder."):
        parts.append(_generator(decoder | average))
    if not parts:
        raise Fault(f"a PyTorch file with a state_dict of {_some(state)}; expected encoder., hypernet. or decoder.")
    return parts


FLAT: tuple[tuple[str, str], ...] = (
    ("enc_style.transformer.", "aladin-vit"), ("enc_style.model.conv_", "aladin-vgg"), ("cp.resnet.", "bisenet"),
    ("out_mask_conv.", "parsenet"), ("body.stage1.", "retinaface-mobilenet"), ("body.layer1.", "retinaface"),
    ("output_layer.3.", "arcface"),
)  # fmt: skip


def _flat(state: "Tensors") -> list[Part]:
    if any(name.startswith("Dpatch.") for name in state):
        critics = (("sae-patch", "Dpatch."), ("sae-image", "D."))
        return [Part(kind, own) for kind, prefix in critics if (own := _under(state, prefix))]
    if "input.input" in state:
        return [_generator(state)]
    if "input_layer.0.weight" in state and "output_layer.3.weight" not in state:
        return [_encoder(state, "")]
    if any(name.startswith("refinement_blocks.") for name in state):
        return [_hyperstyle(state)]
    for prefix, kind in FLAT:
        if any(name.startswith(prefix) for name in state):
            unused = ("enc_content.", "dec.") if kind == "aladin-vgg" else ()
            own = {name: t for name, t in state.items() if not unused or not name.startswith(unused)}
            left = len(state) - len(own)
            notes = (f"{left} tensors of its content encoder and decoder are not needed and were left out",)
            return [Part(kind, own, {}, notes if left else ())]
    if list(state) == ["direction"]:
        return [Part("boundary", state, {"dimensions": state["direction"].shape[-1]})]
    raise Fault(f"a PyTorch file of {_some(state)}, none of the known networks: {', '.join(NAMES.values())}")


def _generator(state: "Tensors") -> Part:
    octaves, depth = (len(_numbers(state, prefix)) for prefix in ("to_rgbs.", "style."))
    last = state.get(f"to_rgbs.{octaves - 1}.conv.weight")
    size = 4 << octaves
    facts: dict[str, Any] = {"size": size}
    if last is not None and last.ndim == 5 and size > 32:
        facts["multiplier"] = _plain(last.shape[2] * size / 16384)
    facts["mapping layers"] = depth
    notes = [] if "latent_avg" in state else ["it has no latent_avg: the mean of mapped z is computed when needed"]
    if not any(name.startswith("noises.") for name in state):
        notes.append("it has no noise maps: they are drawn from the profile's seed")
    return Part("stylegan2", state, facts, tuple(notes))


def _encoder(state: "Tensors", declared: str) -> Part:
    styles = len(_numbers(state, "styles."))
    if styles:
        return Part("psp" if declared == "GradualStyleEncoder" else "e4e", state, {"styles": styles})
    return Part("w-encoder", state)


def _hyperstyle(state: "Tensors") -> Part:
    """Its tensors without those that are the shared expansion's, once more under another name."""
    own: dict[str, Any] = {}
    for name, tensor in state.items():
        alias = re.fullmatch(r"refinement_blocks\.\d+\.hypernet\.(\w+)", name)
        shared = state.get(f"shared_weight_hypernet.{alias[1]}") if alias else None
        if shared is None or not (tensor.data_ptr() == shared.data_ptr() or _same(tensor, shared)):
            own[name] = tensor
    tuned = _numbers(own, "refinement_blocks.")
    return Part("hyperstyle", own, {"layers": f"{len(tuned)} up to {max(tuned, default=-1)}"})


def _same(a: "torch.Tensor", b: "torch.Tensor") -> bool:
    return a.shape == b.shape and bool((a == b).all())


def _state(found: Mapping[Any, Any]) -> "Tensors":
    """A state dict's tensors, `module.` before every name dropped. Raises: Fault for what is no tensor."""
    import torch

    strange = [str(name) for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise Fault(f"a PyTorch file whose {strange[0]} is no tensor; expected a state dict")
    prefix = "module." if all(str(name).startswith("module.") for name in found) else ""
    return {str(name).removeprefix(prefix): value.detach() for name, value in found.items()}


def _average(found: Mapping[str, Any]) -> "Tensors":
    import torch

    average = found.get("latent_avg")
    return {"latent_avg": average.detach()} if isinstance(average, torch.Tensor) else {}


def _under(state: "Tensors", prefix: str) -> "Tensors":
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _numbers(names: Mapping[str, Any], prefix: str) -> set[int]:
    found = {name.removeprefix(prefix).split(".", 1)[0] for name in names if name.startswith(prefix)}
    return {int(number) for number in found if number.isdecimal()}


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


def _some(names: Mapping[Any, Any]) -> str:
    listed = sorted(map(str, names))
    return f"{len(listed)} entries ({', '.join(listed[:3])}{'…' if len(listed) > 3 else ''})"
