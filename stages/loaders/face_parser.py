"""The profile's face parser, loaded: from an aligned picture to its raw label map."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.faces import alignment
from models.faces.detector import largest
from models.parsing import farl
from models.parsing.facexlib_parsers import BiSeNet, ParseNet
from models.parsing.labels import LABELS
from models.parsing.portrait import PortraitParser
from models.regions import MAP_SIZE
from pipeline import images, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.loaders import load as networks

SMALL = 64  # at which a parser without trained weights looks at pictures
FaceParser = Callable[[bytes], NDArray[np.uint8]]  # an encoded picture -> labels u8 [MAP_SIZE, MAP_SIZE]


def open_parser(ctx: Context) -> FaceParser:
    """What `parser.kind` names. Raises: UserError when weights are missing or those of another network."""
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
    net = PortraitParser.load(weights.tensors(name)) if name else networks.drawn(ctx, lambda: PortraitParser(SMALL))
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
        net = farl.FaceParser(script(ctx), head, len(LABELS[f"farl-{head}"]))

        def label(data: bytes) -> NDArray[np.uint8]:
            rgb = images.decode(data)
            # the warp wants this picture's own points, which alignment left near the template's
            found = detector.detect(rgb)
            points = largest(found).points if found else alignment.POINTS * rgb.shape[0]
            return _labels(net.logits(_tensor(ctx, data), points[None].astype(np.float32), MAP_SIZE))

        return label

    return build


def script(ctx: Context) -> Callable[[Tensor], Any]:
    """The profile's TorchScript network, run as it is written: optimised runs differ in their last bits by turns."""
    path = weights.path(ctx.profile.parser.weights)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is what facer publishes, deprecated or not
            net = torch.jit.load(str(path), map_location=ctx.device).eval()
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{path}: is not a TorchScript network ({reason}); import facer's file again") from error

    def run(x: Tensor) -> Any:
        with warnings.catch_warnings(), torch.jit.optimized_execution(False):
            warnings.simplefilter("ignore")
            return net(x)

    return run


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
    """The most likely class of each pixel of logits [1,C,H,W]."""
    found: NDArray[np.uint8] = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
    return found
