"""Renders portraits in styles with the trained hypernetwork."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.generators import details
from models.generators import tone as tones
from models.generators.details import Details
from models.generators.interface import Generator, finished
from models.generators.region_weights import RegionWeights
from models.generators.tone import Tone
from models.hypernetworks import hypernetwork
from models.hypernetworks.hypernetwork import HyperNetwork
from pipeline import images
from pipeline.context import Context
from stages.apply.look import whole
from stages.apply.memory import Memory
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.portraits.portrait import Portrait, Target, identity


@dataclass(frozen=True)
class Prepared:
    """What renderings of a portrait have in common, as tensors of one sample: it does not depend on the style.

    An edited portrait shares its `key`, image, inversion and features with the portrait as it was.
    `regions` say where its regions lie, `by_region` whether deltas act there.
    `inversion` [1, 3, S, S] is the generator's image of the latent, `features` what E_c makes of image and inversion.
    `details` are what pictures get of the photo, if the profile wants any. `original` is the portrait before its edits.
    """

    key: bytes
    image: Tensor
    latent: Tensor
    region: Tensor
    regions: RegionWeights
    by_region: bool
    inversion: Tensor
    features: Tensor
    details: Details | None = None
    original: "Prepared | None" = None

    @property
    def where(self) -> RegionWeights | None:
        """Where the deltas of each region act; None if all act everywhere."""
        return self.regions if self.by_region else None


class Stylist:
    """Renders a portrait with any codes, by the trained networks, or by `generator` and `hyper` if passed.

    What may be used again it keeps in `memory`, if there is one: only for networks that are not in training.
    """

    def __init__(
        self,
        ctx: Context,
        generator: Generator | None = None,
        hyper: HyperNetwork | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.memory = memory or Memory(0)
        self.generator = generator or generators.generator(ctx)
        self.hyper = hyper or hypernetworks.trained_hypernetwork(ctx, self.generator.layer_table())
        self.device, self.refinement_iterations = ctx.device, ctx.profile.train.refinement_iterations
        self.finish = ctx.profile.render

    def prepare(self, content: Portrait) -> Prepared:
        """The portrait as tensors, its inversion and E_c's features."""
        key = identity(content)
        return self.memory.get(("prepared", key), lambda: self._prepare(content, key))

    @torch.no_grad()
    def _prepare(self, content: Portrait, key: bytes) -> Prepared:
        image, latent = images.to_tensor(content.image).to(self.device), self._tensor(content.latent)
        region = torch.from_numpy(content.region)[None].to(self.device)
        regions = RegionWeights(region)
        if content.base:
            base = self.prepare(content.base)
            found = self._details(base.image, base.inversion, regions)
            found = found and details.kept(found, base.inversion, image)
            return replace(base, latent=latent, region=region, regions=regions, details=found, original=base)
        inversion = self.generator(latent)
        features = self.hyper.features(hypernetwork.side_by_side(image, inversion.clamp(-1, 1)))
        found = self._details(image, inversion, regions)
        return Prepared(key, image, latent, region, regions, self.hyper.region_deltas, inversion, features, found)

    def _details(self, image: Tensor, inversion: Tensor, regions: RegionWeights) -> Details | None:
        return details.details(image, inversion, regions, self.finish.details) if self.finish.details else None

    @torch.no_grad()
    def deltas(self, content: Prepared, codes: np.ndarray) -> list[Tensor]:
        """The deltas [1, ...] of each kernel for codes [4, 256]; an edited portrait has those of the original.

        Those of a region are kept by its own code.
        """
        s, given = content.original or content, self._tensor(codes)
        if self.refinement_iterations > 1 or not s.by_region:
            return self.memory.get(
                ("deltas", s.key, codes.tobytes()),
                lambda: hypernetwork.predict(
                    self.hyper,
                    self.generator,
                    s.image,
                    s.latent,
                    given,
                    s.region,
                    self.refinement_iterations,
                    s.inversion,
                ),
            )
        regions = self.hyper.conditions(given, s.region)[0][:, 0]
        parts = [self._of_region(s, code) for code in regions.split(1)]
        return [torch.stack(deltas, 1) for deltas in zip(*parts, strict=True)]

    def _of_region(self, content: Prepared, code: Tensor) -> list[Tensor]:
        key = "deltas", content.key, code.cpu().numpy().tobytes()
        return self.memory.get(key, lambda: self.hyper.of_region(content.features, code))

    @torch.no_grad()
    def render(self, content: Portrait, target: Target) -> np.ndarray:
        """y(c, s): the content rendered with a style's codes (Eq. 2) and palette, RGB u8 [256, 256, 3]."""
        prepared = self.prepare(content)
        return self.draw(prepared, self.deltas(prepared, target.codes), target.palette)

    @torch.no_grad()
    def draw(self, content: Prepared, deltas: Sequence[Tensor], tone: Tone | np.ndarray | None) -> np.ndarray:
        """The content with deltas [1, ...], one per kernel, and a tone or a palette [4, 4]; RGB u8 [256, 256, 3]."""
        y = finished(self.generator, self.generator(content.latent, [*deltas], content.where))
        return images.to_arrays(self.toned(content, y, tone))[0]

    def toned(self, content: Prepared, image: Tensor, tone: Tone | np.ndarray | None) -> Tensor:
        """An image [1, 3, S, S] in a tone, or in that which gives it a palette [4, 4] and the photo's details."""
        tone = tone if isinstance(tone, Tone) else self.tone(content, image, tone)
        return image if tone is None else tones.toned(image, content.regions, tone, content.details)

    def tone(self, content: Prepared, image: Tensor, colours: np.ndarray | None) -> Tone | None:
        """What gives an image [1, 3, S, S] a palette [4, 4] and the photo's details, if the profile wants them."""
        wanted = self._tensor(colours) if colours is not None and self.finish.palette else None
        if wanted is None and content.details is None:
            return None
        return tones.tone(image, content.regions, wanted, content.details)

    def stylize(self, content: Portrait, style: Portrait, strength: float = 1.0) -> np.ndarray:
        """The content in the style; `strength` 0 keeps the content's own codes, 1 takes the style's."""
        return self.render(content, self.target(content, style, strength))

    def target(self, content: Portrait, style: Portrait, strength: float) -> Target:
        """The codes and the palette between the content's own (strength 0) and the style's (1)."""
        return whole(style, strength).target(content)

    def invert(self, content: Portrait) -> np.ndarray:
        """The frozen generator's image of the content's latent, RGB u8 [256, 256, 3]."""
        with torch.no_grad():
            return images.to_arrays(self.generator(self._tensor(content.latent)))[0]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32))[None].to(self.device)
