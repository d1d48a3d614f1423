"""Refinement: the deltas that one forward pass predicts, optimised for one portrait and one style (beyond the paper).

Adam on the deltas of the trained layers, on the auxiliary loss of the training: style statistics of VGG16 by region and
normalised content features, both cached for each image. Nothing that results are judged by is optimised (no
LPIPS-alex, no Inception, no identity network).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones.trunks import Trunk
from models.generators import interface
from models.generators.latent_renderer import narrow_type
from models.generators.region_renderer import renderer, rows_of
from models.losses.narrow_region_style import NarrowRegionStyleLoss
from models.losses.region_style import groups_present
from pipeline import images, weights
from pipeline.context import Context
from stages.apply.portrait import Portrait
from stages.apply.stylist import Stylist

RATE, MOMENTA = 0.01, (0.9, 0.99)
STYLE_WEIGHT = 6.0  # of the region style loss beside the content term
PATIENCE = 6  # steps without a better loss, after which more would not help


class Refinement:
    """Refines what a `Stylist` predicts; deterministic, of one pair at a time.

    Raises: ValueError for a stylist with more than one refinement iteration, whose deltas are sums.
    """

    def __init__(self, ctx: Context, stylist: Stylist) -> None:
        if stylist.refinement_iterations != 1:
            raise ValueError(
                f"refinement starts from one forward pass, this network makes {stylist.refinement_iterations}"
            )
        self.stylist = stylist
        dtype = narrow_type(ctx.device)
        self.rows = rows_of(stylist.generator, dtype)
        self.term = NarrowRegionStyleLoss(Trunk("vgg16", weights.tensors("lpips-vgg")), dtype).to(ctx.device)
        self.start = max(1, interface.start_row(stylist.generator.layer_table(), ctx.profile.train.start_layer))
        self._wanted: dict[tuple[str, int], tuple[list[tuple[Tensor, Tensor]], Tensor]] = {}

    def __call__(
        self,
        content: Portrait,
        style: Portrait,
        steps: int,
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tensor:
        """The image [1, 3, 256, 256] in [-1, 1] of the best deltas among `steps` steps; 0: one forward pass.

        `on_step(done, total)` follows each step.
        """
        s, codes = self.stylist, self.stylist.codes(content, style, 1.0)
        x, region = images.to_tensor(content.image).to(s.device), torch.from_numpy(content.region)[None].to(s.device)
        latent = torch.from_numpy(content.latent).float()[None].to(s.device)
        with torch.no_grad():
            inversion = s.generator(latent).clamp(-1, 1)
            deltas = s.hyper(x, inversion, torch.from_numpy(codes).float()[None].to(s.device), region)
            where, shape = s.hyper.region_weights(region), self._statistics(content)[1]
        theirs = self._statistics(style)[0]
        present = groups_present(region, torch.from_numpy(style.region)[None].to(s.device))
        draw = renderer(s.generator, self.rows, latent, where, deltas, self.start)
        moving = [d.clone().requires_grad_() for d in deltas[self.start :]]
        optimiser = torch.optim.Adam(moving, lr=RATE, betas=MOMENTA, fused=True)
        best: tuple[float, int, Tensor] | None = None
        for step in range(steps + 1):
            y = draw([*deltas[: self.start], *moving])
            ours, ours_shape = self.term.features(y)
            loss = STYLE_WEIGHT * self.term.style(self.term.statistics(ours, region), theirs, present) + F.mse_loss(
                ours_shape, shape
            )
            if best is None or float(loss.detach()) < best[0]:
                best = float(loss.detach()), step, y.detach()
            if step == steps or step - best[1] >= PATIENCE:
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            on_step(step + 1, steps)
        assert best is not None
        return best[2].clamp(-1, 1)

    @torch.no_grad()
    def _statistics(self, portrait: Portrait) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """A image's style statistics by region and content features, computed once."""
        known = portrait.key, hash(portrait.image.tobytes())
        if known not in self._wanted:
            x = images.to_tensor(portrait.image).to(self.stylist.device)
            region = torch.from_numpy(portrait.region)[None].to(self.stylist.device)
            features, shape = self.term.features(x)
            self._wanted[known] = self.term.statistics(features, region), shape
        return self._wanted[known]
