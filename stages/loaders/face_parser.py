"""The profile's face parser, loaded: from an aligned image to its raw label map."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.faces import alignment
from models.faces.detector import largest
from models.parsing import farl
from models.parsing.facexlib_parsers import BiSeNet, ParseNet
from models.parsing.farl_network import OUTPUT, FaRL
from models.parsing.labels import LABELS
from models.parsing.portrait import PortraitParser
from models.regions import MAP_SIZE
from pipeline import images, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.loaders.load import drawn

SMALL = 64  # px at which a parser without trained weights reads images
FaceParser = Callable[[bytes], NDArray[np.uint8]]  # an encoded image -> labels u8 [MAP_SIZE, MAP_SIZE]


def open_parser(ctx: Context) -> FaceParser:
    """The face parser that `parser.kind` names.

    Raises: UserError when its weights are missing, or are those of another network.
    """
    settings = ctx.profile.parser
    try:
        return KINDS[settings.kind](ctx)
    except ValueError as error:
        raise UserError(
            f"weights {settings.weights}: {error}; profile {ctx.profile.name} uses them as "
            f"parser.kind {settings.kind!r}"
        ) from error


def _portrait(ctx: Context) -> FaceParser:
    name = ctx.profile.parser.weights
    net = PortraitParser.load(weights.tensors(name)) if name else drawn(ctx, lambda: PortraitParser(SMALL))
    net.to(ctx.device)
    return lambda data: (
        net.parse(images.to_tensor(images.decode(data, MAP_SIZE, halve=True)).to(ctx.device))[0].cpu().numpy()
    )


def _facexlib(network: type[BiSeNet | ParseNet]) -> Callable[[Context], FaceParser]:
    def build(ctx: Context) -> FaceParser:
        net = network.load(weights.tensors(ctx.profile.parser.weights)).to(ctx.device)
        return lambda data: _labels(net.logits(_tensor(ctx, data), MAP_SIZE))

    return build


def _farl(head: str) -> Callable[[Context], FaceParser]:
    def build(ctx: Context) -> FaceParser:
        from stages.loaders.face_detector import open_detector

        detector = open_detector(ctx)
        net = farl.FaceParser(farl_network(ctx), head, len(LABELS[f"farl-{head}"]))

        def label(data: bytes) -> NDArray[np.uint8]:
            rgb = images.decode(data)
            # the warp needs the points of this very face; alignment left them near the template's
            faces = detector.detect(rgb)
            points = largest(faces).points if faces else alignment.POINTS * rgb.shape[0]
            return _labels(net.logits(_tensor(ctx, data), points[None].astype(np.float32), MAP_SIZE))

        return label

    return build


def farl_network(ctx: Context) -> FaRL:
    """The profile's FaRL network. Raises: UserError when its weights are missing; ValueError when they do not fit."""
    name = ctx.profile.parser.weights
    if not str(weights.path(name)).endswith(".safetensors"):
        raise UserError(
            f"{name}: is not a safetensors file, and a TorchScript file is never run; "
            f"run `hypernst weights import {name} --as ./mine.safetensors` to take its tensors out"
        )
    return FaRL.load(weights.tensors(name), weights.facts(name).get("output", OUTPUT)).to(ctx.device)


KINDS: dict[str, Callable[[Context], FaceParser]] = {
    "portrait": _portrait,
    "farl-lapa": _farl("lapa"),
    "farl-celebm": _farl("celebm"),
    "bisenet": _facexlib(BiSeNet),
    "parsenet": _facexlib(ParseNet),
}


def _tensor(ctx: Context, data: bytes, size: int | None = None) -> Tensor:
    return images.to_tensor(images.decode(data, size)).to(ctx.device)


def _labels(logits: Tensor) -> NDArray[np.uint8]:
    """The most likely class of each pixel of logits [1, C, H, W]."""
    labels: NDArray[np.uint8] = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
    return labels
