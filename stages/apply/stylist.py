"""Renders portraits in styles with the trained hypernetwork."""

import numpy as np
import torch
from torch import Tensor

from models.generators.interface import Generator
from models.hypernetworks import hypernetwork
from models.hypernetworks.hypernetwork import HyperNetwork
from pipeline import images
from pipeline.context import Context
from stages.apply.portrait import Portrait
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks


class Stylist:
    """Renders a portrait with any codes, by the trained networks, or by `generator` and `hyper` if passed."""

    def __init__(self, ctx: Context, generator: Generator | None = None, hyper: HyperNetwork | None = None) -> None:
        self.generator = generator or generators.generator(ctx)
        self.hyper = hyper or hypernetworks.trained_hypernetwork(ctx, self.generator.layer_table())
        self.device, self.refinement_iterations = ctx.device, ctx.profile.train.refinement_iterations

    def render(self, content: Portrait, codes: np.ndarray) -> np.ndarray:
        """y(c, s): the content rendered with codes [4, 256], RGB u8 [256, 256, 3] (Eq. 2)."""
        y = hypernetwork.render(
            self.hyper,
            self.generator,
            images.to_tensor(content.image).to(self.device),
            self._tensor(content.latent),
            self._tensor(codes),
            torch.from_numpy(content.region)[None].to(self.device),
            self.refinement_iterations,
        )
        return images.to_arrays(y)[0]

    def stylize(self, content: Portrait, style: Portrait, strength: float = 1.0) -> np.ndarray:
        """The content in the style; `strength` 0 keeps the content's own codes, 1 takes the style's."""
        return self.render(content, self.codes(content, style, strength))

    def codes(self, content: Portrait, style: Portrait, strength: float) -> np.ndarray:
        """The codes [4, 256] between the content's own (strength 0) and the style's (1)."""
        return hypernetwork.mix_codes(torch.from_numpy(content.codes), torch.from_numpy(style.codes), strength).numpy()

    def invert(self, content: Portrait) -> np.ndarray:
        """The frozen generator's image of the content's latent, RGB u8 [256, 256, 3]."""
        with torch.no_grad():
            return images.to_arrays(self.generator(self._tensor(content.latent)))[0]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32))[None].to(self.device)
