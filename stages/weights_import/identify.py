"""Says what a weights file is, by its bytes and the names in it, and takes its tensors out. Nothing in it is run.

The errors of the functions that take an object are sentences about "this" file. `read` puts the file's name in front.
"""

import argparse
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.weights import containers, nvidia_pickle, torchscript
from stages.weights_import.kinds import FLAT, NAMES, Part
from stages.weights_import.structure import sentence

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

PSP = "GradualStyleEncoder"  # the tensors are named and shaped as e4e's; only the options tell them apart
LIMIT = 2**30  # values of one tensor; HyperStyle's largest has 134 million


def read(path: Path) -> list[Part]:
    """The networks of a file, the one it is published for first. From a TorchScript network the tensors are taken.

    Raises: UserError when the file holds no known network; one line, `FILE: what it is instead`.
    """
    try:
        kind = containers.kind(path)
        if kind == "script":
            return of_script(torchscript.read(path))
        if kind == "boundary":
            import torch

            return [_boundary(torch.from_numpy(containers.boundary(path)))]
        if kind == "pickle":
            return of_pickle(nvidia_pickle.load(path))
        if kind == "safetensors":
            return of_state(containers.tensors(path))
        return of_state(containers.torch_object(path, kind == "torch"))
    except UserError as fault:
        raise UserError(f"{path}: {fault}", fault.status) from fault


def of_script(script: torchscript.Script) -> list[Part]:
    """The network of a TorchScript archive, whose program is left out. Raises: UserError when it is no known one."""
    try:
        parts = _flat(_state(script.tensors))
    except UserError as fault:
        problem = str(fault).replace("a PyTorch file of", "a TorchScript network of", 1)
        raise UserError(f"{problem}; no program of a file is ever run") from fault
    if parts[0].kind != "farl":
        return parts
    for name, value in script.attributes.items():
        if not isinstance(expected := FARL.get(name.rpartition(".")[2], value), type(value)) or value != expected:
            raise UserError(f"this is a FaRL face parser whose {name} is {_short(value)}; expected {expected}")
    output = script.attributes.get("out_size")
    if output is None:  # a traced network has no attributes
        return parts
    if not isinstance(output, list | tuple) or [type(side) for side in output] != [int, int]:
        raise UserError(f"this is a FaRL face parser whose out_size is {_short(output)}; expected a height and a width")
    return [replace(parts[0], facts={**parts[0].facts, "output": list(output)})]


FARL = {"input_resolution": 448, "num_extra_tokens": 0, "output_indices": [3, 5, 7, 11]}  # of its modules


def _short(value: object) -> str:
    return str(value)[:40] if isinstance(value, int | float | str) else f"a {type(value).__name__}"


def of_kind(kind: str, tensors: "Tensors") -> Part:
    """The tensors as a network of that kind, with the facts that follow from them."""
    readers = {
        "stylegan2": _generator,
        "stylegan2-discriminator": _discriminator,
        "hyperstyle": _hyperstyle,
        "farl": _farl,
    }
    if kind in ("e4e", "psp"):
        return _encoder(tensors, PSP if kind == "psp" else "")
    return readers[kind](tensors) if kind in readers else Part(kind, tensors)


def of_pickle(networks: Any) -> list[Part]:
    """The EMA generator and the discriminator of an unpickled NVIDIA file, whichever it has.

    Raises: UserError when it has neither.
    """
    parts = []
    generator, discriminator = nvidia_pickle.generator(networks), nvidia_pickle.discriminator(networks)
    if generator:
        parts.append(_generator(generator))
    if discriminator:
        parts.append(_discriminator(discriminator))
    if not parts:
        raise UserError("this is a pickle without the modules G_ema and D; expected a network of stylegan2-ada-pytorch")
    return parts


def of_state(state: Any) -> list[Part]:
    """The networks of a PyTorch file's object. Raises: UserError when it holds no known one."""
    import torch

    if isinstance(state, torch.Tensor):
        return [_boundary(state.detach())]
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"this is a PyTorch file of a {type(state).__name__}; expected a dictionary of tensors")
    generator, discriminator = state.get("g_ema", state.get("g")), state.get("d")
    parts = [_generator(_state(generator) | _latent_avg(state))] if isinstance(generator, Mapping) and generator else []
    if isinstance(discriminator, Mapping) and discriminator:
        parts.append(_discriminator(_state(discriminator)))
    if parts:
        return parts
    if isinstance(state.get("state_dict"), Mapping):
        if any(str(name).startswith("blocks.0.flows.") for name in state["state_dict"]):
            return [Part("artflow", _state(state["state_dict"]))]
        return _psp(_state(state["state_dict"]), _latent_avg(state), state.get("opts"))
    if all(isinstance(value, torch.Tensor) for value in state.values()):
        return _flat(_state(state))
    raise UserError(
        f"this is a PyTorch file of {_entries(state)}, none of the known layouts; expected g_ema, state_dict or tensors"
    )


def _psp(state: "Tensors", latent_avg: "Tensors", opts: Any) -> list[Part]:
    import torch

    options = vars(opts) if isinstance(opts, argparse.Namespace) else opts if isinstance(opts, Mapping) else {}
    start = latent_avg
    if options.get("start_from_latent_avg") is False:  # it was trained to give latents, not offsets from the average
        start = {"latent_avg": torch.zeros(512)}
    parts: list[Part] = []
    if hyper := _under(state, "hypernet."):
        parts.append(_hyperstyle(hyper))
    if encoder := _under(state, "encoder."):
        parts.append(_encoder(encoder | start, str(options.get("encoder_type", ""))))
    if decoder := _under(state, "decoder."):
        parts.append(_generator(decoder | latent_avg))
    if not parts:
        raise UserError(
            f"this is a PyTorch file with a state_dict of {_entries(state)}; expected encoder., hypernet. or decoder."
        )
    return parts


def _flat(state: "Tensors") -> list[Part]:
    if any(name.startswith(("Dpatch.", "D.", "G.SpatialCodeModulation.")) for name in state):
        whole = {name: tensor for name, tensor in state.items() if name.startswith(("E.", "G."))}
        parts = [Part("sae", whole)] if any(name.startswith("G.") for name in whole) else []
        discriminators = (("sae-patch", "Dpatch."), ("sae-image", "D."))
        return parts + [Part(kind, tensors) for kind, prefix in discriminators if (tensors := _under(state, prefix))]
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
            tensors = {name: t for name, t in state.items() if not unused or not name.startswith(unused)}
            dropped = len(state) - len(tensors)
            notes = (f"{dropped} tensors of its content encoder and decoder are not needed and were left out",)
            return [Part(kind, tensors, {}, notes if dropped else ())]
    if list(state) == ["direction"]:
        return [_boundary(state["direction"])]
    raise UserError(
        f"this is a PyTorch file of {_entries(state)}, none of the known networks: {', '.join(NAMES.values())}"
    )


def _boundary(direction: "torch.Tensor") -> Part:
    """A direction [D], or the same one for each layer of W+, [L, D] or [1, L, D]: one row is kept."""
    shown = f"{list(direction.shape)} of {str(direction.dtype).removeprefix('torch.')}"
    if not 1 <= direction.ndim <= 3 or not direction.is_floating_point() or not direction.numel():
        raise UserError(f"this is a tensor {shown}; expected a boundary [1, 512] of floats")
    rows = direction.reshape(-1, direction.shape[-1])
    if len(rows) > 1 and not bool((rows - rows[0]).abs().max() < 1e-6):
        raise UserError(f"this is a boundary {shown} whose layers differ; expected one direction for all layers")
    return Part("boundary", {"direction": rows[:1]}, {"dimensions": rows.shape[1]})


def _generator(state: "Tensors") -> Part:
    from models.generators import stylegan2

    facts: dict[str, Any] = {}
    with suppress(ValueError):  # `structure` says what does not fit
        size, multiplier, depth = stylegan2.measure(state)
        facts = {"size": size} | ({"multiplier": _plain(multiplier)} if size > 32 else {}) | {"mapping layers": depth}
    notes = [] if "latent_avg" in state else ["it has no latent_avg: the mean of mapped z is computed when needed"]
    if not any(name.startswith("noises.") for name in state):
        notes.append("it has no noise maps: they are sampled from the profile's seed")
    return Part("stylegan2", state, facts, tuple(notes))


def _discriminator(state: "Tensors") -> Part:
    from models import state_dicts

    blocks, first = len(state_dicts.numbers(state, "convs.")) - 1, state.get("convs.0.0.weight")
    size = 4 << max(blocks, 0)
    facts: dict[str, Any] = {"size": size}
    if first is not None and first.ndim == 4 and size > 32:
        facts["multiplier"] = _plain(first.shape[0] * size / 16384)
    return Part("stylegan2-discriminator", state, facts)


def _encoder(state: "Tensors", declared: str) -> Part:
    from models import state_dicts

    styles = len(state_dicts.numbers(state, "styles."))
    if styles:
        return Part("psp" if declared == PSP else "e4e", state, {"styles": styles})
    return Part("w-encoder", state)


def _hyperstyle(state: "Tensors") -> Part:
    """Its tensors without those that repeat the shared expansion. Raises: UserError when a copy is not a copy."""
    from models import state_dicts
    from models.hypernetworks import hyperstyle

    try:
        tensors = hyperstyle.without_aliases(state)
    except ValueError as error:
        raise UserError(sentence(error)) from error
    tuned = state_dicts.numbers(tensors, "refinement_blocks.")
    return Part("hyperstyle", tensors, {"layers": f"{len(tuned)} up to {max(tuned, default=-1)}"})


def _farl(state: "Tensors") -> Part:
    last = state.get("head.head.conv_seg.weight")
    return Part("farl", state, {"classes": len(last)} if last is not None and last.ndim else {})


def _state(values: Mapping[Any, Any]) -> "Tensors":
    """A state dict's tensors, without `module.` before every name. Raises: UserError when a value is no tensor."""
    import torch

    strange = [str(name) for name, value in values.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise UserError(f"this is a PyTorch file whose {strange[0]} is no tensor; expected a state dict")
    huge = [(str(name), tensor.numel()) for name, tensor in values.items() if tensor.numel() > LIMIT]
    if huge:  # a few bytes may claim to be repeated without end
        name, count = huge[0]
        raise UserError(f"this is a PyTorch file whose {name} claims {count:.1e} values; expected at most {LIMIT:.1e}")
    prefix = "module." if all(str(name).startswith("module.") for name in values) else ""
    return {str(name).removeprefix(prefix): value.detach() for name, value in values.items()}


def _latent_avg(file: Mapping[str, Any]) -> "Tensors":
    import torch

    latent_avg = file.get("latent_avg")
    return {"latent_avg": latent_avg.detach()} if isinstance(latent_avg, torch.Tensor) else {}


def _under(state: "Tensors", prefix: str) -> "Tensors":
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


def _entries(names: Mapping[Any, Any]) -> str:
    from models import state_dicts

    return f"{len(names)} entries ({state_dicts.some(map(str, names))})"
