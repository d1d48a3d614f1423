"""Writes weights files as their authors publish them, from state dicts with the keys of rosinality or a reference."""

import argparse
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.discriminators.image import ImageDiscriminator
from models.generators.stylegan2 import StyleGAN2
from models.stylegan_ops import fir

TRAP = "import pathlib; pathlib.Path({!r}).touch()"  # the source of a class; it must never run


def generator(size: int = 8, multiplier: float = 2, depth: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of a small generator; all tensors but the blur kernels are random."""
    rng = torch.Generator().manual_seed(seed)
    state = StyleGAN2(size, multiplier, depth).state_dict()
    return {name: t if name.endswith("kernel") else torch.randn(t.shape, generator=rng) for name, t in state.items()}


def discriminator(size: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """The random state dict of a narrow discriminator, in rosinality's layout."""
    rng, out = torch.Generator().manual_seed(seed), {}
    for name, t in ImageDiscriminator(size, base=512, top=24, stddev=True).state_dict().items():
        halving = ".conv2." in name or ".skip." in name
        place = name.replace(".conv.weight", f".{int(halving)}.weight").replace(".act.bias", f".{1 + halving}.bias")
        out[place] = torch.randn(t.shape, generator=rng)
        if halving and place.endswith(".1.weight"):
            out[place.replace(".1.weight", ".0.kernel")] = fir()
    return out


def trained(path: Path, state: dict[str, Tensor], legacy: bool = False) -> Path:
    """Rosinality's training checkpoint: three copies, optimisers, options in a Namespace, no latent_avg."""
    content = {
        "g": state,
        "d": {},
        "g_ema": state,
        "g_optim": {"state": {}},
        "d_optim": {},
        "ada_aug_p": 0.0,
        "args": argparse.Namespace(size=64, ckpt=None, lr=0.002),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def converted(path: Path, state: dict[str, Tensor]) -> Path:
    """Rosinality's file converted from NVIDIA's: the EMA generator and latent_avg."""
    torch.save({"g_ema": state, "latent_avg": torch.arange(512.0)}, path)
    return path


def psp(
    path: Path, parts: dict[str, dict[str, Tensor]], encoder_type: str, namespace: bool = False, num_ws: int = 18
) -> Path:
    """A file of the pSp family: prefixes in one state_dict, options beside it."""
    opts: dict[str, Any] = {"encoder_type": encoder_type, "start_from_latent_avg": True, "output_size": 64}
    state = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    torch.save(
        {
            "state_dict": state,
            "latent_avg": torch.zeros(num_ws, 512),
            "global_step": 3,
            "best_val_loss": None,
            "opts": argparse.Namespace(**opts) if namespace else opts,
        },
        path,
    )
    return path


def nvidia(
    path: Path,
    state: dict[str, Tensor],
    trap: Path | None = None,
    discriminator: dict[str, Tensor] | None = None,
    **extra: Tensor,
) -> Path:
    """A network pickle of stylegan2-ada-pytorch: persistent modules with their source, which
    would create `trap` if it ran.
    """
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta: Any) -> None: ...

    _reconstruct_persistent_obj.__module__ = _reconstruct_persistent_obj.__qualname__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    util.EasyDict = easy  # type: ignore[attr-defined]

    class Persistent:
        def __init__(self, name: str) -> None:
            self.name, self.tensors, self.modules = name, dict[str, Tensor](), dict[str, Any]()

        def at(self, dotted: str) -> "Persistent":
            head, _, rest = dotted.partition(".")
            module = self.modules.setdefault(head, Persistent(head))
            return module.at(rest) if rest else module

        def __reduce__(self) -> Any:
            names = ("resample_filter", "noise_const", "w_avg", "const_buffer")
            parameters = {k: torch.nn.Parameter(t) for k, t in self.tensors.items() if k not in names}
            buffers = {k: t for k, t in self.tensors.items() if k in names}
            inner = {
                "training": False,
                "_parameters": parameters,
                "_buffers": buffers,
                "_modules": self.modules,
                "_non_persistent_buffers_set": set(),
                "_init_kwargs": easy(z_dim=512),
                "dtype": torch.float16,
            }
            meta = {
                "type": "class",
                "version": 6,
                "class_name": self.name,
                "state": inner,
                "module_src": TRAP.format(str(trap)) if trap else "raise SystemExit",
            }
            return _reconstruct_persistent_obj, (meta,)

    def module(name: str, tensors: dict[str, Tensor]) -> Persistent:
        root = Persistent(name)
        for dotted, tensor in tensors.items():
            place, _, leaf = dotted.rpartition(".")
            root.at(place).tensors[leaf] = tensor
        return root

    networks = {"D": module("Discriminator", _nvidia_discriminator(discriminator)) if discriminator else None}
    if state:
        networks |= {"G": module("Generator", _nvidia(state)), "G_ema": module("Generator", _nvidia(state) | extra)}
    fake_modules = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }
    sys.modules.update(fake_modules)
    try:
        path.write_bytes(pickle.dumps(networks | {"training_set_kwargs": easy(a=1)}, 4))
    finally:
        for name in fake_modules:
            del sys.modules[name]
    return path


def _nvidia_discriminator(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A discriminator's tensors under NVIDIA's names."""
    size = 4 << max(int(name.split(".")[1]) for name in state if name.startswith("convs."))
    layers = {"convs.0": f"b{size}.fromrgb", "final_conv": "b4.conv"}
    for i in range(1, size.bit_length() - 2):
        layers |= {
            f"convs.{i}.{ours}": f"b{2 * size >> i}.{nvidia_name}"
            for ours, nvidia_name in (("conv1", "conv0"), ("conv2", "conv1"), ("skip", "skip"))
        }
    out = {"b4.conv.resample_filter": torch.zeros(4, 4), f"b{size}.resample_filter": torch.zeros(4, 4)}  # never used
    for name, tensor in state.items():
        place, _, leaf = name.rpartition(".")
        if place.startswith("final_linear."):
            out[f"b4.{'fc' if place.endswith('0') else 'out'}.{leaf}"] = tensor
        else:
            out[f"{layers[place.rpartition('.')[0]]}.{leaf.replace('kernel', 'resample_filter')}"] = tensor
    return out


def _nvidia(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A generator's tensors under NVIDIA's names."""
    kernel = torch.tensor([1.0, 3, 3, 1])
    smooth = torch.outer(kernel, kernel) / 64
    depth = sum(name.startswith("style.") for name in state) // 2
    out = {"mapping.w_avg": torch.arange(512.0), "synthesis.b4.const": state["input.input"][0]}
    for i in range(depth):
        out |= {f"mapping.fc{i}.{leaf}": state[f"style.{i + 1}.{leaf}"] for leaf in ("weight", "bias")}
    blocks = sum(name.startswith("to_rgbs.") and name.endswith("conv.weight") for name in state)
    for o in range(blocks + 1):
        block = f"synthesis.b{4 << o}"
        out[f"{block}.resample_filter"] = smooth
        layers = (
            [("conv1", "conv1", 0)]
            if o == 0
            else [("conv0", f"convs.{2 * o - 2}", 2 * o - 1), ("conv1", f"convs.{2 * o - 1}", 2 * o)]
        )
        for nvidia_name, ours, noise in layers:
            out |= {
                f"{block}.{nvidia_name}.weight": state[f"{ours}.conv.weight"][0],
                f"{block}.{nvidia_name}.bias": state[f"{ours}.activate.bias"],
                f"{block}.{nvidia_name}.affine.weight": state[f"{ours}.conv.modulation.weight"],
                f"{block}.{nvidia_name}.affine.bias": state[f"{ours}.conv.modulation.bias"],
                f"{block}.{nvidia_name}.noise_strength": state[f"{ours}.noise.weight"][0],
                f"{block}.{nvidia_name}.noise_const": state[f"noises.noise_{noise}"][0, 0],
                f"{block}.{nvidia_name}.resample_filter": smooth,
            }
        rgb = f"to_rgbs.{o - 1}" if o else "to_rgb1"
        out |= {
            f"{block}.torgb.weight": state[f"{rgb}.conv.weight"][0],
            f"{block}.torgb.bias": state[f"{rgb}.bias"].flatten(),
            f"{block}.torgb.affine.weight": state[f"{rgb}.conv.modulation.weight"],
            f"{block}.torgb.affine.bias": state[f"{rgb}.conv.modulation.bias"],
        }
    return out
