"""The training of SANet, and of ContraAST, which adds contrastive losses and a discriminator to it."""

import torch
from torch import Tensor, nn

from models.baselines import sanet
from models.baselines.vgg19 import unit
from models.discriminators.multiscale import MultiscaleDiscriminator
from models.losses import contraast, feature_statistics
from models.losses.feature_statistics import Seen, Terms
from pipeline.context import Context
from pipeline.training.distributed import ALONE
from pipeline.training.state import advance
from stages.baselines import starts
from stages.baselines.training import Told, adam, encoder, new_decoder, numbers, precision_of, rate, see
from stages.loaders.load import load


class SANet:
    """Transformer and decoder learn, from the weights that the profile names.

    Without a transformer among these it starts as a style swap beside a decoder that can read features.
    """

    KIND, NAME = sanet.SANet, "sanet"
    BATCH, MULTIPLE, LEAST = 5, 16, 32

    def __init__(self, ctx: Context) -> None:
        self.warm_up, self.precision = ctx.profile.baselines.warm_up, precision_of(ctx)
        start, transformer = ctx.profile.baselines.transformer, sanet.Transformer(self.KIND.FIXED)
        if start:
            transformer = load(start, lambda tensors: sanet.Transformer.load(tensors, self.KIND.FIXED))
        elif ctx.profile.baselines.decoder:
            starts.swap(transformer)
        self.model = self.KIND(encoder(), new_decoder(ctx), transformer).to(ctx.device)
        self.nets: dict[str, nn.Module] = {"transformer": self.model.transformer, "decoder": self.model.decoder}
        for net in self.nets.values():
            net.requires_grad_(True)
        self.optimisers: dict[str, torch.optim.Optimizer] = {"adam": adam(*self.nets.values())}

    def drawn(self, content: Seen, style: Seen) -> Seen:
        """Contents in styles, not clamped, and their taps."""
        a, b = ((x.taps[3], x.taps[4]) for x in (content, style))
        with self.precision():
            image = self.model.decoder(self.model.transformer(a, b))
        return see(self.model.encoder, image, self.precision)

    def seen(self, images: Tensor) -> Seen:
        """Images [N, 3, H, W] in [-1, 1] and their taps, without gradients."""
        with torch.no_grad():
            return see(self.model.encoder, unit(images), self.precision)

    def step(self, content: Tensor, style: Tensor, number: int) -> Told:
        """See `Training`."""
        own, theirs = self.seen(content), self.seen(style)
        terms = feature_statistics.sanet_terms(
            self.drawn(own, theirs), own, theirs, self.drawn(own, own), self.drawn(theirs, theirs)
        )
        feature_statistics.total(terms, feature_statistics.SANET).backward()
        return numbers(terms), advance(self.optimisers["adam"], ALONE, rate=rate(number, self.warm_up))

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """See `Training`."""
        return {
            f"{self.NAME}-{part}": dict(self.model.get_submodule(part).state_dict())
            for part in ("decoder", "transformer")
        }


class ContraAST(SANet):
    """Each content is drawn in two styles and each style on two contents; projection heads and discriminator learn."""

    KIND, NAME = sanet.ContraAST, "contraast"
    BATCH, MULTIPLE, LEAST = 6, 8, 128

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.style_head = contraast.projection(contraast.STYLE_WIDTH, contraast.CODE).to(ctx.device)
        self.content_head = contraast.projection(contraast.CONTENT_WIDTH, 2 * contraast.CODE).to(ctx.device)
        self.judge = MultiscaleDiscriminator().to(ctx.device)
        self.nets |= {"style_head": self.style_head, "content_head": self.content_head}
        self.optimisers = {"adam": adam(*self.nets.values()), "judge_adam": adam(self.judge, betas=(0.5, 0.999))}
        self.nets["judge"] = self.judge

    def step(self, content: Tensor, style: Tensor, number: int) -> Told:
        """See `Training`."""
        own, theirs = self.seen(content), self.seen(style)
        contents, styles = (index.to(content.device) for index in contraast.rows(len(content)))
        left, right = _rows(own, contents), _rows(theirs, styles)
        out = self.drawn(left, right)
        self.judge.requires_grad_(True)
        judged = self.judge.loss(right.image, 1) + self.judge.loss(out.image.detach(), 0)
        judged.backward()
        bad = advance(self.optimisers["judge_adam"], ALONE, rate=rate(number, self.warm_up))
        self.judge.requires_grad_(False)
        terms: Terms = feature_statistics.sanet_terms(
            out, left, right, _rows(self.drawn(own, own), contents), _rows(self.drawn(theirs, theirs), styles)
        )
        terms |= contraast.contrastive_terms(
            contraast.embed(self.style_head, out.taps[2]), contraast.embed(self.content_head, out.taps[3])
        )
        terms["adversarial"] = self.judge.loss(out.image, 1)
        feature_statistics.total(terms, contraast.WEIGHTS).backward()
        bad = advance(self.optimisers["adam"], ALONE, rate=rate(number, self.warm_up)) or bad
        return numbers(terms | {"discriminator": judged}), bad


def _rows(seen: Seen, index: Tensor) -> Seen:
    return Seen(seen.image[index], [tap[index] for tap in seen.taps])
