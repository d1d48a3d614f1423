"""Neural Neighbor Style Transfer (Kolkin et al. 2022), its optimising variant NNST-Opt.

From coarse to fine, each position's VGG16 hypercolumn of the content is replaced by the nearest of the style's, and the
image's Laplacian pyramid is optimised towards them. A last pass finds the neighbours anew in each step and layer.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from models.backbones.trunks import Trunk
from models.baselines import nnst_features as nf
from models.baselines.nnst_colour import match_colour

CONVS = 10  # of VGG16: up to relu4_3
STEPS, RATE = 200, 2e-3
SCALES, LEVELS, FINE_LEVELS = 4, 8, 3  # scales of the matching; levels of the pyramid; of them empty at the start
SMALLEST = 16  # pixels of the shorter side at the coarsest scale
SAMPLED = 64  # positions of a map's longer side that the last pass looks at, about
ALPHA = 0.75  # how much of the content there is in what neighbours are searched for


class NNST(nn.Module):
    """Optimises an image for one content and one style.

    One defect of the published code is repaired: its last pass reads the previous layer's features wherever a map has
    at most 64 positions a side (at 256 px all of relu3 and relu4); here such a map is used whole.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "NNST":
        """From torchvision's VGG16 (`features.0.weight` …) or this project's LPIPS-vgg (`trunk.0.weight` …).

        Layers after relu4_3, and LPIPS' heads, are not needed. Raises: ValueError naming what does not fit.
        """
        numbers = sorted({int(m[1]) for name in tensors if (m := re.match(r"features\.(\d+)\.", name))})
        names = {f"features.{n}": f"trunk.{i}" for i, n in enumerate(numbers)}
        renamed = {
            f"{names.get(stem, stem)}.{leaf}": t for k, t in tensors.items() for stem, _, leaf in [k.rpartition(".")]
        }
        return cls(Trunk("vgg16", renamed, depth=CONVS))

    def features(self, images: Tensor) -> list[Tensor]:
        """relu1_1 … relu4_3 of images [1, 3, H, W] in [0, 1]."""
        return list(self.trunk.layers(images * 2 - 1))

    def sampled_losses(self, image: Tensor, style: Sequence[Tensor], rng: random.Random) -> Tensor:
        """The last pass' loss [10], one for each layer, of an image [1, 3, H, W] to the `turned_maps` of a style.

        A map longer than 64 is sampled by a stride from offsets that `rng` gives, the style's alike.
        """
        losses = []
        for own, theirs in zip(self.features(image), style, strict=True):
            if (longest := max(own.shape[2:])) > SAMPLED:
                stride = longest // SAMPLED
                rows, columns = (slice(rng.randint(0, stride - 1), None, stride) for _ in range(2))
                own, theirs = own[:, :, rows, columns], theirs[:, :, rows, columns]
            losses.append(nf.nearest_loss(own[0].flatten(1), theirs[0].flatten(1)))
        return torch.stack(losses)

    def forward(
        self,
        content: Tensor,
        style: Tensor,
        *,
        steps: int = STEPS,
        seed: int = 0,
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tensor:
        """The content [1, 3, H, W] in the style [1, 3, h, w], all in [-1, 1]; `steps` for each scale and the last pass.

        `on_step(done, total)` follows each step. Deterministic for the same seed.
        Raises: ValueError when a side has fewer than 16 pixels.
        """
        rng, x, s = random.Random(seed), (content + 1) / 2, (style + 1) / 2
        shortest = min(*x.shape[2:], *s.shape[2:])
        if shortest < SMALLEST:
            raise ValueError(f"NNST needs images of at least {SMALLEST} px; got {shortest}")
        scales = min(SCALES + (max(x.shape[2:]) >= 1024), (shortest // SMALLEST).bit_length())
        levels = min(LEVELS, min(x.shape[2:]).bit_length() - 1)
        done, total = 0, steps * (scales + 1)

        def told() -> None:
            nonlocal done
            done += 1
            on_step(done, total)

        contents, styles = nf.decompose(x, levels), nf.decompose(s, min(levels, scales))
        fine = FINE_LEVELS - (max(x.shape[2:]) >= 1024)
        pyramid = [torch.zeros_like(level) if i < fine else level for i, level in enumerate(contents)]
        with torch.enable_grad():
            for scale in reversed(range(scales)):
                here, theirs = nf.compose(contents[scale:]), nf.compose(styles[scale:])
                mix = 0.0 if scale == scales - 1 else 1 - ALPHA
                with torch.no_grad():
                    search = mix * nf.compose([contents[scale], *pyramid[scale + 1 :]]) + (1 - mix) * here
                    own = nf.hypercolumns(self.features(search), search.shape[2:])
                    target = nf.matched(own, nf.turned_hypercolumns(self.features, theirs))

                def loss(image: Tensor, target: Tensor = target) -> Tensor:
                    return nf.cosine_loss(nf.hypercolumns(self.features(image), image.shape[2:]), target)

                image = optimise(pyramid[scale:], loss, steps, told)
                pyramid[scale:] = nf.decompose(image, levels - scale)
            with torch.no_grad():
                maps = nf.turned_maps(self.features, s)
            image = optimise(pyramid, lambda image: self.sampled_losses(image, maps, rng).sum(), steps, told)
        return match_colour(x, s, image) * 2 - 1


def optimise(
    pyramid: Sequence[Tensor], loss: Callable[[Tensor], Tensor], steps: int, told: Callable[[], None]
) -> Tensor:
    """The image of a pyramid after Adam on all its levels; as published, the one that the last step began with."""
    moving = [level.clone().requires_grad_() for level in pyramid]
    optimiser = torch.optim.Adam(moving, lr=RATE)
    image = nf.compose(pyramid)
    for _ in range(steps):
        image = nf.compose(moving)
        optimiser.zero_grad()
        loss(image).backward()
        optimiser.step()
        told()
    return image.detach()
