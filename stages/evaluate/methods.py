"""The methods that are compared: functions of two portraits that return an image."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from models.baselines.adain import AdaIN
from pipeline import images, weights
from pipeline.context import Context
from stages.apply.portrait import Portrait
from stages.apply.stylist import Stylist

Method = Callable[[Portrait, Portrait], np.ndarray]
TITLES = {"unstylised": "Content, unstylised", "adain": "AdaIN", "hypernst": "HyperNST (ours)"}
ABILITIES = {"adain": ("yes", "no"), "hypernst": ("yes", "no")}  # interpolation, editing


def unstylised(ctx: Context) -> Method:
    """The content as it is: the score of doing nothing."""
    return lambda content, style: content.image


def adain(ctx: Context) -> Method:
    """AdaIN (Huang & Belongie 2017)."""
    net = AdaIN(weights.tensors("adain-vgg19"), weights.tensors("adain-decoder")).to(ctx.device)

    @torch.inference_mode()
    def method(content: Portrait, style: Portrait) -> np.ndarray:
        a, b = (images.to_tensor(p.image).to(ctx.device) for p in (content, style))
        return images.to_arrays(net(a, b))[0]

    return method


def hypernst(ctx: Context) -> Method:
    """This project's network: the run's weights if it has any, else the shipped ones."""
    return Stylist(ctx).stylize


METHODS: Mapping[str, Callable[[Context], Method]] = {"unstylised": unstylised, "adain": adain, "hypernst": hypernst}
