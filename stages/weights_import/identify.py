"""Says what a weights file is, by its bytes and the names in it, and takes its tensors out; nothing in it is run."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.weights import containers, nvidia_pickle, torchscript

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

NAMES = {
    "stylegan2": "StyleGAN2 generator", "stylegan2-discriminator": "StyleGAN2 discriminator", "e4e": "e4e encoder",
    "psp": "pSp encoder", "w-encoder": "W-encoder", "hyperstyle": "HyperStyle hypernetwork",
    "farl": "FaRL face parser", "aladin-vit": "ALADIN on ViT", "aladin-vgg": "ALADIN on VGG16",
    "bisenet": "BiSeNet face parser", "parsenet": "ParseNet face parser", "retinaface": "RetinaFace-R50",
    "retinaface-mobilenet": "RetinaFace-MobileNet0.25", "sae-patch": "Swapping Autoencoder patch discriminator",
    "sae-image": "Swapping Autoencoder image discriminator", "boundary": "semantic boundary",
    "arcface": "ArcFace IR-SE50 face recogniser",
}  # fmt: skip


PSP = "GradualStyleEncoder"  # the tensors are named and shaped as e4e's; only the options tell them apart
LIMIT = 2**30  # values of one tensor; HyperStyle's largest has 134 million


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
    """The networks of a file, the one it is published for first. Of a TorchScript network the tensors are taken.

    Raises: UserError, one line, saying what the file is instead.
    """
    try:
        kind = containers.kind(path)
        if kind == "script":
            return of_script(torchscript.read(path))
        if kind == "boundary":
            import torch

            array = containers.boundary(path)
            return [Part("boundary", {"direction": torch.from_numpy(array)}, {"dimensions": array.shape[1]})]
        if kind == "pickle":
            return of_pickle(nvidia_pickle.load(path))
        found = containers.tensors(path) if kind == "safetensors" else containers.torch_object(path, kind == "torch")
        return of_state(found)
    except UserError as fault:
        raise UserError(f"{path}: is {fault}", fault.status) from fault


def of_script(found: torchscript.Script) -> list[Part]:
    """The network of a TorchScript archive, whose program is left out. Raises: UserError, the rest of a sentence."""
    try:
        parts = _flat(_state(found.tensors))
    except UserError as fault:
        known = str(fault).replace("a PyTorch file of", "a TorchScript network of", 1)
        raise UserError(f"{known}; no program of a file is ever run") from fault
    if parts[0].kind != "farl":
        return parts
    for name, value in found.attributes.items():
        if not isinstance(wanted := FARL.get(name.rpartition(".")[2], value), type(value)) or value != wanted:
            raise UserError(f"a FaRL face parser whose {name} is {_short(value)}; expected {wanted}")
    output = found.attributes.get("out_size")
    if output is None:  # a traced network has no attributes
        return parts
    if not isinstance(output, list | tuple) or [type(side) for side in output] != [int, int]:
        raise UserError(f"a FaRL face parser whose out_size is {_short(output)}; expected a height and a width")
    return [replace(parts[0], facts={**parts[0].facts, "output": list(output)})]


FARL = {"input_resolution": 448, "num_extra_tokens": 0, "output_indices": [3, 5, 7, 11]}  # of its modules


def _short(value: object) -> str:
    return str(value)[:40] if isinstance(value, int | float | str) else f"a {type(value).__name__}"


def of_kind(kind: str, tensors: "Tensors") -> Part:
    """What is known of a network of that kind."""
    known = {
        "stylegan2": _generator,
        "stylegan2-discriminator": _discriminator,
        "hyperstyle": _hyperstyle,
        "farl": _farl,
    }
    if kind in ("e4e", "psp"):
        return _encoder(tensors, PSP if kind == "psp" else "")
    return known[kind](tensors) if kind in known else Part(kind, tensors)


def of_pickle(found: Any) -> list[Part]:
    """The averaged generator and the discriminator of an unpickled NVIDIA file, whichever it has."""
    parts = []
    generator, discriminator = nvidia_pickle.generator(found), nvidia_pickle.discriminator(found)
    if generator:
        parts.append(_generator(generator))
    if discriminator:
        parts.append(_discriminator(discriminator))
    if not parts:
        raise UserError("a pickle without the modules G_ema and D; expected a network of stylegan2-ada-pytorch")
    return parts


def of_state(found: Any) -> list[Part]:
    """The networks of a PyTorch file's object. Raises: UserError, the rest of a sentence."""
    import torch

    if not isinstance(found, Mapping) or not found:
        raise UserError(f"a PyTorch file of a {type(found).__name__}; expected a dictionary of tensors")
    generator, discriminator = found.get("g_ema", found.get("g")), found.get("d")
    parts = [_generator(_state(generator) | _average(found))] if isinstance(generator, Mapping) and generator else []
    if isinstance(discriminator, Mapping) and discriminator:
        parts.append(_discriminator(_state(discriminator)))
    if parts:
        return parts
    if isinstance(found.get("state_dict"), Mapping):
        return _psp(_state(found["state_dict"]), _average(found), found.get("opts"))
    if all(isinstance(value, torch.Tensor) for value in found.values()):
        return _flat(_state(found))
    raise UserError(
        f"a PyTorch file of {_some(found)}, none of the known layouts; expected g_ema, state_dict or tensors"
    )


def _psp(state: "Tensors", average: "Tensors", opts: Any) -> list[Part]:
    import torch

    options = vars(opts) if isinstance(opts, argparse.Namespace) else opts if isinstance(opts, Mapping) else {}
    start = average
    if options.get("start_from_latent_avg") is False:  # it was trained to give latents, not offsets from the average
        start = {"latent_avg": torch.zeros(512)}
    parts: list[Part] = []
    if hyper := _under(state, "hypernet."):
        parts.append(_hyperstyle(hyper))
    if encoder := _under(state, "encoder."):
        parts.append(_encoder(encoder | start, str(options.get("encoder_type", ""))))
    if decoder := _under(state, "decoder."):
        parts.append(_generator(decoder | average))
    if not parts:
        raise UserError(f"a PyTorch file with a state_dict of {_some(state)}; expected encoder., hypernet. or decoder.")
    return parts


FLAT: tuple[tuple[str, str], ...] = (
    ("enc_style.transformer.", "aladin-vit"), ("enc_style.model.conv_", "aladin-vgg"), ("cp.resnet.", "bisenet"),
    ("out_mask_conv.", "parsenet"), ("body.stage1.", "retinaface-mobilenet"), ("body.layer1.", "retinaface"),
    ("output_layer.3.", "arcface"),
)  # fmt: skip


def _flat(state: "Tensors") -> list[Part]:
    if any(name.startswith(("Dpatch.", "D.")) for name in state):
        discriminators = (("sae-patch", "Dpatch."), ("sae-image", "D."))
        return [Part(kind, own) for kind, prefix in discriminators if (own := _under(state, prefix))]
    if "head.head.conv_seg.weight" in state:
        return [_farl(state)]
    if "input.input" in state:
        return [_generator(state)]
    if "final_conv.0.weight" in state:
        return [_discriminator(state)]
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
    if list(state) == ["direction"] and state["direction"].ndim:
        return [Part("boundary", state, {"dimensions": state["direction"].shape[-1]})]
    raise UserError(f"a PyTorch file of {_some(state)}, none of the known networks: {', '.join(NAMES.values())}")


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


def _discriminator(state: "Tensors") -> Part:
    octaves, first = len(_numbers(state, "convs.")) - 1, state.get("convs.0.0.weight")
    size = 4 << max(octaves, 0)
    facts: dict[str, Any] = {"size": size}
    if first is not None and first.ndim == 4 and size > 32:
        facts["multiplier"] = _plain(first.shape[0] * size / 16384)
    return Part("stylegan2-discriminator", state, facts)


def _encoder(state: "Tensors", declared: str) -> Part:
    styles = len(_numbers(state, "styles."))
    if styles:
        return Part("psp" if declared == PSP else "e4e", state, {"styles": styles})
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


def _farl(state: "Tensors") -> Part:
    last = state.get("head.head.conv_seg.weight")
    return Part("farl", state, {"classes": len(last)} if last is not None and last.ndim else {})


def _same(a: "torch.Tensor", b: "torch.Tensor") -> bool:
    return a.shape == b.shape and bool((a == b).all())


def _state(found: Mapping[Any, Any]) -> "Tensors":
    """A state dict's tensors, `module.` before every name dropped. Raises: UserError for what is no tensor."""
    import torch

    strange = [str(name) for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise UserError(f"a PyTorch file whose {strange[0]} is no tensor; expected a state dict")
    huge = [str(name) for name, tensor in found.items() if tensor.numel() > LIMIT]
    if huge:  # a few bytes may claim to be repeated without end
        raise UserError(
            f"a PyTorch file whose {huge[0]} claims {found[huge[0]].numel():.1e} values; none here has so many"
        )
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
