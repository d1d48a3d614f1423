"""Refinement: the deltas that one forward pass predicts, optimised for one portrait and one look (beyond the paper).

Adam on the deltas of the trained layers, on the auxiliary loss of the training: style statistics of VGG16 by region and
normalised content features, and on finer ones of eyes, nose and mouth; all are cached for each image. Nothing that
results are judged by is optimised (no LPIPS-alex, no Inception, no identity network).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones.trunks import Trunk
from models.generators import interface
from models.generators.latent_renderer import narrow_type
from models.generators.region_renderer import renderer, rows_of
from models.generators.tone import Tone
from models.losses.narrow_region_style import PHASES, NarrowRegionStyleLoss
from models.losses.region_style import groups_present
from models.regions import REGION_COUNT
from pipeline import hashing, images, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.apply.look import Look
from stages.apply.memory import Memory
from stages.apply.stylist import Stylist
from stages.loaders import hypernetwork as hypernetworks
from stages.portraits.portrait import Portrait

RATE, MOMENTUM, STEADY = (0.013, 0.018), (0.5, 0.7), 0.99  # at first and after CHANGE steps: directions turn fast early
CHANGE = 10
STYLE_WEIGHT = 9.0  # of the region style loss beside the two content terms; training has 6 (train.style) and one
DETAILS = 0.5  # times the photo's details of one forward pass: refinement draws much of what they add
SAME = 2  # steps that see the same quarter of the finest activations: with another in each, directions turn too often
KEPT = 48 << 20  # bytes of images' statistics and content features: about 20 images
PATIENCE = 6  # steps without a better loss, after which more would not help

Statistics = list[tuple[Tensor, Tensor]]  # mean and std of each compared layer


class Refined(NamedTuple):
    """The image [1, 3, 256, 256] in [-1, 1] of the best deltas, these deltas, one per kernel, and the image's tone."""

    image: Tensor
    deltas: list[Tensor]
    tone: Tone | None


class Adam:
    """`torch.optim.Adam(fused=True)`, whose first step imports torch's compiler: a second of processor time.

    The rate and the first momentum are each step's own; the second is `STEADY`.
    """

    def __init__(self, moving: list[Tensor]) -> None:
        self.moving = moving
        self.means, self.squares = ([torch.zeros_like(d, requires_grad=False) for d in moving] for _ in range(2))
        self.counts = [torch.zeros((), device=d.device) for d in moving]

    @torch.no_grad()
    def step(self, slopes: Sequence[Tensor], rate: float, momentum: float) -> None:
        """Move by the gradients of what is to become smaller."""
        for count in self.counts:
            count += 1
        torch._fused_adam_(
            self.moving, [*slopes], self.means, self.squares, [], self.counts,
            lr=rate, beta1=momentum, beta2=STEADY, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip


class Refinement:
    """Refines what a `Stylist` predicts; deterministic, of one portrait and one look at a time.

    Raises: UserError(2) for a stylist with more than one refinement iteration, whose deltas are sums.
    """

    def __init__(self, ctx: Context, stylist: Stylist) -> None:
        if stylist.refinement_iterations != 1:
            raise UserError(
                f"refinement starts from one forward pass, profile {ctx.profile.name} makes "
                f"{stylist.refinement_iterations} (train.refinement_iterations); refine by 0 steps",
                2,
            )
        self.stylist, self._kept = stylist, Memory(KEPT)
        dtype = narrow_type(ctx.device)
        self.rows = rows_of(stylist.generator, dtype)
        self.term = NarrowRegionStyleLoss(Trunk("vgg16", weights.tensors("lpips-vgg")), dtype).to(ctx.device)
        self.start = max(1, hypernetworks.start_row(ctx.profile.train, stylist.generator.layer_table()))

    def __call__(
        self, content: Portrait, look: Look, steps: int, on_step: Callable[[int, Tensor], bool | None] | None = None
    ) -> Refined:
        """The best of the prediction and `steps` steps from it, by what each sees whole; 0: the prediction.

        `on_step` gets each step's number and the best image so far [1, 3, 256, 256]; True ends the refinement, with
        what that many steps give.
        """
        s, p = self.stylist, self.stylist.prepare(content)
        deltas = s.deltas(p, look.codes(content))
        theirs, present = self._targets(content, look)
        shape, face = self._shape(content)
        draw = renderer(s.generator, self.rows, p.latent, p.where, deltas, self.start)
        moving = [d.clone().requires_grad_() for d in deltas[self.start :]]
        optimiser = Adam(moving)
        best: tuple[float, int, Refined] | None = None
        tone: Tone | None = None  # that of the prediction, then with fewer details
        for step in range(steps + 1):
            y = interface.finished(s.generator, draw([*deltas[: self.start], *moving]))
            if step == 0:
                tone = s.tone(p, y.detach(), look.palette(content))
            elif step == 1 and tone:
                tone = tone._replace(detail=DETAILS * tone.detail)
            y = s.toned(p, y, tone)
            phase = PHASES[step // SAME % len(PHASES)]
            ours, ours_shape = self.term.features(y, phase)
            whole, quarter = self.term.parted(self.term.statistics(ours, p.region, phase), theirs, present)
            kept_shape = F.mse_loss(ours_shape, shape) + F.mse_loss(self.term.face_features(y), face)
            compared = STYLE_WEIGHT * whole + kept_shape
            loss = compared + STYLE_WEIGHT * quarter
            now = float(compared.detach())  # the only time that a step waits for a GPU
            if best is None or now < best[0]:
                kept = [*deltas[: self.start], *(d.detach().clone() for d in moving)]
                best = now, step, Refined(y.detach().clamp(-1, 1), kept, tone)
            ended = on_step is not None and on_step(step, best[2].image)
            if ended or step == steps or step - best[1] >= PATIENCE:
                break
            changed = min(1.0, step / CHANGE)
            rate, momentum = (a + changed * (b - a) for a, b in (RATE, MOMENTUM))
            optimiser.step(torch.autograd.grad(loss, moving), rate, momentum)
        assert best is not None
        return best[2]

    def _targets(self, content: Portrait, look: Look) -> tuple[Statistics, Tensor]:
        """The style statistics to come to, [1, 4, C] each, and which of the four groups count, [1, 4] bool.

        Statistics are mixed as codes are: by weight, then from the portrait's own by strength. Regions of different
        looks have no common image, so that the whole image does not count then, and a region that a style lacks is
        compared with its whole image.
        """
        whole, aims = REGION_COUNT, []
        counts = groups_present(self._region(content), self._region(content))[0]
        for group in range(REGION_COUNT + 1):
            part = look.parts[min(group, REGION_COUNT - 1)]
            sources = []
            for style, weight in part.styles:
                has = bool(groups_present(self._region(style), self._region(style))[0, group])
                if look.uniform:
                    counts[group] &= has
                sources.append((self._statistics(style), group if has or look.uniform else whole, weight))
            if not sources or part.strength != 1:
                own = [(self._statistics(content), group, 1 - part.strength if sources else 1.0)]
                sources = [*own, *((stats, at, part.strength * weight) for stats, at, weight in sources)]
            aims.append(_mixed(sources))
        counts[whole] &= look.uniform
        layers = [zip(*layer, strict=True) for layer in zip(*aims, strict=True)]
        return [(torch.stack(means, 1), torch.stack(deviations, 1)) for means, deviations in layers], counts[None]

    def _region(self, portrait: Portrait) -> Tensor:
        return torch.from_numpy(portrait.region)[None].to(self.stylist.device)

    def _statistics(self, portrait: Portrait) -> Statistics:
        """An image's style statistics by region."""
        return self._kept.get(("statistics", _key(portrait)), lambda: self._computed(portrait))

    @torch.no_grad()
    def _computed(self, portrait: Portrait) -> Statistics:
        return self.term.targets(self._image(portrait), self._region(portrait))

    @torch.no_grad()
    def _shape(self, portrait: Portrait) -> tuple[Tensor, Tensor]:
        """An image's content features and its face's; at full strength no more is asked of the portrait's own."""

        def computed() -> tuple[Tensor, Tensor]:
            image = self._image(portrait)
            return self.term.content_features(image), self.term.face_features(image)

        return self._kept.get(("shape", _key(portrait)), computed)

    def _image(self, portrait: Portrait) -> Tensor:
        return images.to_tensor(portrait.image).to(self.stylist.device)


def _key(portrait: Portrait) -> bytes:
    return hashing.digest(portrait.image.tobytes(), portrait.region.tobytes())


def _mixed(sources: list[tuple[Statistics, int, float]]) -> Statistics:
    """The mean of statistics of one group each, mean and deviation [1, C] by layer, with weights that sum to 1."""
    layers = range(len(sources[0][0]))
    mean, deviation = (
        [torch.stack([weight * stats[layer][which][:, at] for stats, at, weight in sources]).sum(0) for layer in layers]
        for which in (0, 1)
    )
    return [*zip(mean, deviation, strict=True)]
