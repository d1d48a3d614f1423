"""The profile's segmenter, loaded: from an aligned picture to its raw label map."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import farl, ffhq
from models.detector import largest
from models.farl_network import OUTPUT, FaRL
from models.labels import LABELS
from models.parser import PortraitParser
from models.segmenters import BiSeNet, ParseNet
from pipeline import pictures, weights
from pipeline.context import Context
from pipeline.errors import Fault
from stages import networks

SIZE = 256  # of the label map
SMALL = 64  # at which a parser without trained weights looks at pictures
Labeller = Callable[[bytes], NDArray[np.uint8]]  # an encoded picture -> labels u8 [SIZE, SIZE]


def labeller(ctx: Context) -> Labeller:
    """What the profile's `parser.kind` names. Raises: Fault when weights are missing or those of another network."""
    settings = ctx.profile.parser
    try:
        return KINDS[settings.kind](ctx)
    except ValueError as error:
        raise Fault(f"weights {settings.weights}: {error}; profile {ctx.profile.name} uses them as "
                    f"parser.kind {settings.kind!r}") from error


def _portrait(ctx: Context) -> Labeller:
    name = ctx.profile.parser.weights
    net = PortraitParser.load(weights.tensors(name)) if name else networks.drawn(ctx, lambda: PortraitParser(SMALL))
    net.to(ctx.device)
    return lambda data: net.parse(pictures.to_tensor(pictures.decode(data, SIZE, halve=True)).to(ctx.device))[
        0].cpu().numpy()


def _segmenter(network: type[BiSeNet | ParseNet]) -> Callable[[Context], Labeller]:
    def build(ctx: Context) -> Labeller:
        net = network.load(weights.tensors(ctx.profile.parser.weights)).to(ctx.device)
        return lambda data: _labels(net.logits(_tensor(ctx, data), SIZE))

    return build


def _farl(head: str) -> Callable[[Context], Labeller]:
    def build(ctx: Context) -> Labeller:
        from stages.align import open_detector

        detector = open_detector(ctx)
        net = farl.FaceParser(farl_network(ctx), head, len(LABELS[f"farl-{head}"]))

        def label(data: bytes) -> NDArray[np.uint8]:
            rgb = pictures.decode(data)
            # the warp wants this picture's own points, which alignment left near the template's
            found = detector.detect(rgb)
            points = largest(found).points if found else ffhq.POINTS * rgb.shape[0]
            return _labels(net.logits(_tensor(ctx, data), points[None].astype(np.float32), SIZE))

        return label

    return build


def farl_network(ctx: Context) -> FaRL:
    """The profile's FaRL network. Raises: Fault when its weights are missing; ValueError when they do not fit."""
    name = ctx.profile.parser.weights
    if not str(weights.path(name)).endswith(".safetensors"):
        raise Fault(f"{name}: is not a safetensors file; a TorchScript file is never run: "
                    f"`hypernst weights import {name} --as ./mine.safetensors` takes its tensors out")
    return FaRL.load(weights.tensors(name), weights.facts(name).get("output", OUTPUT)).to(ctx.device)


KINDS: dict[str, Callable[[Context], Labeller]] = {
    "portrait": _portrait,
    "farl-lapa": _farl("lapa"),
    "farl-celebm": _farl("celebm"),
    "bisenet": _segmenter(BiSeNet),
    "parsenet": _segmenter(ParseNet),
}


def _tensor(ctx: Context, data: bytes, size: int | None = None) -> Tensor:
    return pictures.to_tensor(pictures.decode(data, size)).to(ctx.device)


def _labels(logits: Tensor) -> NDArray[np.uint8]:
    """The most likely class of each pixel of logits [1,C,H,W]."""
    found: NDArray[np.uint8] = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
    return found
