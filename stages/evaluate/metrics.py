"""The networks that measure results: LPIPS and SIFID."""

from functools import cached_property
from typing import Any

import numpy as np
import torch

from models.backbones.inception import SIFID_LAYERS, InceptionStem
from models.metrics import sifid
from models.metrics.lpips import LPIPS
from pipeline import images, weights
from pipeline.context import Context
from stages.loaders.load import load

METRICS = ("lpips_alex", "lpips_vgg", "sifid_192", "sifid_64")
METRIC_WEIGHTS = ("lpips-alex", "lpips-vgg", "inception-fid")
STEM_LOADERS = {"inception-fid": InceptionStem, "inception-imagenet": InceptionStem.load_imagenet}
STEMS = {"inception-fid": "FID Inception", "inception-imagenet": "ImageNet Inception"}  # by their weights


def metric_weights(ctx: Context) -> tuple[str, ...]:
    """The weights of METRICS: LPIPS', and those of the profile's Inception."""
    return *METRIC_WEIGHTS[:2], ctx.profile.eval.sifid


def sifid_titles(ctx: Context) -> dict[str, str]:
    """The full name of each SIFID of METRICS: network, layer and channels, without which it compares with none."""
    stem = STEMS[ctx.profile.eval.sifid]
    return {f"sifid_{channels}": f"SIFID ({stem}, {layer}, {channels})" for channels, layer in SIFID_LAYERS.items()}


class Metrics:
    """The networks that compare images u8 [H, W, 3]."""

    def __init__(self, ctx: Context) -> None:
        self.device = ctx.device
        self.alex = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)
        name = ctx.profile.eval.sifid
        self.stem = load(name, STEM_LOADERS[name]).to(ctx.device)

    @cached_property
    def vgg(self) -> LPIPS:
        """LPIPS-vgg, loaded at its first use."""
        return LPIPS("vgg", weights.tensors("lpips-vgg")).to(self.device)

    @torch.inference_mode()
    def summary(self, image: np.ndarray) -> dict[int, sifid.Gaussian]:
        """SIFID's mean and covariance at 192 and 64 channels."""
        maps = self.stem(images.to_tensor(image).to(self.device))
        return {channels: sifid.gaussian(features[0].cpu()) for channels, features in maps.items()}

    @torch.inference_mode()
    def lpips(self, a: np.ndarray, b: np.ndarray) -> float:
        """LPIPS-alex of two images."""
        x, y = (images.to_tensor(image).to(self.device) for image in (a, b))
        return float(self.alex(x, y))

    @torch.inference_mode()
    def features(self, image: np.ndarray) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """LPIPS features, AlexNet's and VGG's."""
        x = images.to_tensor(image).to(self.device)
        return self.alex.features(x), self.vgg.features(x)

    @torch.inference_mode()
    def compare(self, image: np.ndarray, content: Any, style: dict[int, sifid.Gaussian]) -> dict[str, float]:
        """All METRICS of a result, from the `features` of its content and the `summary` of its style."""
        alex, vgg = self.features(image)
        ours = self.summary(image)
        return {
            "lpips_alex": float(self.alex.distance(alex, content[0])),
            "lpips_vgg": float(self.vgg.distance(vgg, content[1])),
            "sifid_192": sifid.frechet(ours[192], style[192]),
            "sifid_64": sifid.frechet(ours[64], style[64]),
        }
