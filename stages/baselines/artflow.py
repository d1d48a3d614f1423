"""The training of ArtFlow with AdaIN."""

import torch
from torch import Tensor, nn

from models.baselines import artflow as network
from models.baselines.vgg19 import unit
from models.losses import feature_statistics
from pipeline.context import Context
from pipeline.training.distributed import ALONE
from pipeline.training.state import advance
from stages.baselines.training import Told, adam, encoder, numbers, rate

CLIP = 5.0


class ArtFlow:
    """The flow learns; its first batch of contents only sets the scales of its channels."""

    BATCH, MULTIPLE, LEAST = 4, network.MULTIPLE, 16

    def __init__(self, ctx: Context) -> None:
        self.encoder, self.warm_up = encoder(4).to(ctx.device), ctx.profile.baselines.warm_up
        self.model = network.ArtFlow().to(ctx.device)
        self.nets: dict[str, nn.Module] = {"flow": self.model}
        self.optimisers: dict[str, torch.optim.Optimizer] = {"adam": adam(self.model)}

    def step(self, content: Tensor, style: Tensor, number: int) -> Told:
        """See `Training`."""
        own, theirs = unit(content), unit(style)
        if not number:
            with torch.no_grad():
                self.model.latents(own)
            return {}, ""
        moved = self.model.operator(self.model.latents(own), self.model.latents(theirs))
        with torch.no_grad():
            targets = [self.encoder.taps(x) for x in (own, theirs)]
        terms = feature_statistics.artflow_terms(self.encoder.taps(self.model.images(moved)), *targets)
        feature_statistics.total(terms, feature_statistics.ARTFLOW).backward()
        return numbers(terms), advance(self.optimisers["adam"], ALONE, rate=rate(number, self.warm_up), clip=CLIP)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """See `Training`."""
        return {"artflow-adain": dict(self.model.state_dict())}
