"""The training of PAMA: three alignments, whose features one decoder draws."""

import torch
from torch import Tensor, nn

from models.baselines import pama as network
from models.baselines.vgg19 import unit
from models.losses import pama
from models.losses.feature_statistics import Seen, Terms
from pipeline.context import Context
from pipeline.training.distributed import ALONE
from pipeline.training.state import advance
from stages.baselines import starts
from stages.baselines.training import (
    Pairs,
    Told,
    adam,
    encoder,
    new_decoder,
    numbers,
    precision_of,
    rate,
    rise,
    see,
    to_device,
)

STARTING = 16  # contents, and styles, that an alignment's start knows features by
HELD = 10_000  # steps for which the rate stays, as published


class PAMA:
    """Alignments and decoder learn. Beside a decoder that can read features the alignments start as style swaps."""

    BATCH, MULTIPLE, LEAST = 8, 8, 24

    def __init__(self, ctx: Context) -> None:
        self.encoder, self.warm_up = encoder().to(ctx.device), ctx.profile.baselines.warm_up
        self.precision = precision_of(ctx)
        alignments = [network.Alignment() for _ in pama.STAGES]
        if ctx.profile.baselines.decoder:
            starts.align(alignments, self.features(ctx))
        self.model = network.PAMA(encoder(4), alignments, new_decoder(ctx)).to(ctx.device)
        self.nets: dict[str, nn.Module] = {"alignments": self.model.alignments, "decoder": self.model.decoder}
        for net in self.nets.values():
            net.requires_grad_(True)
        self.optimisers: dict[str, torch.optim.Optimizer] = {"adam": adam(*self.nets.values())}

    @torch.no_grad()
    def features(self, ctx: Context) -> Tensor:
        """relu4_1 [N, 512, h, w] of some of the images that are trained on."""
        pairs = Pairs(ctx, ctx.profile.baselines.crop, STARTING)[0]
        return torch.cat([self.encoder.taps(unit(x))[3] for x in to_device(pairs, ctx.device)]).cpu()

    def drawn(self, features: Tensor) -> Seen:
        """The images of features, not clamped, and their taps."""
        with self.precision():
            image = self.model.decoder(features)
        return see(self.encoder, image, self.precision)

    def step(self, content: Tensor, style: Tensor, number: int) -> Told:
        """See `Training`."""
        with torch.no_grad():
            own, theirs = (see(self.encoder, unit(x), self.precision) for x in (content, style))
            target = pama.histogram(theirs.image)
        features, losses, told = own.taps[3], [], Terms()
        for k, (align, weights) in enumerate(zip(self.model.alignments, pama.STAGES, strict=True), 1):
            with self.precision():
                features = align(features, theirs.taps[3])
            terms = pama.stage_terms(self.drawn(features), own, theirs, target)
            losses.append(pama.stage_loss(terms, *weights))
            told |= {f"stage{k}": losses[-1], f"colour{k}": terms[-1]["colour"]}
        losses.append(pama.reconstruction([(self.drawn(x.taps[3]), x) for x in (own, theirs)]))
        torch.stack(losses).sum().backward()
        bad = advance(
            self.optimisers["adam"],
            ALONE,
            rate=rate(number // HELD * HELD) * rise(number, self.warm_up),
        )
        return numbers(told | {"reconstruction": losses[-1]}), bad

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """See `Training`."""
        alignments = {f"pama-align{i}": dict(net.state_dict()) for i, net in enumerate(self.model.alignments, 1)}
        return alignments | {"pama-decoder": dict(self.model.decoder.state_dict())}
