"""The auxiliary region style loss: VGG16 feature statistics per region, for when discriminators alone learn too slowly.

It is off in the paper's profiles. Means and stds of features are matched (AdaIN's style loss, Huang and Belongie 2017),
but inside each region, so that hair is compared with hair. Normalised deep features preserve the content.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.trunks import Trunk
from models.regions import REGION_COUNT

FINE = (0, 1)  # convolutions compared at full size: the second sees the grain that half the size has lost
COARSE = (3, 5, 7)  # convolutions compared at half size
CONTENT = 5  # the convolution of the content features


class RegionStyleLoss(nn.Module):
    """Region-wise style distance and content distance of images [N, 3, 256, 256] in [-1, 1]."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The compared activations, and the content features [N, 256, 32, 32], instance-normalised."""
        return self.beside([*taps(self.trunk, x, FINE).values()], x)

    def beside(self, fine: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
        """What `features` gives of x, whose activations at full size are there."""
        coarse = taps(self.trunk, F.avg_pool2d(x, 2), COARSE)
        return [*fine, *coarse.values()], F.instance_norm(coarse[CONTENT])

    def content_features(self, x: Tensor) -> Tensor:
        """The content features of `features` alone."""
        return F.instance_norm(taps(self.trunk, F.avg_pool2d(x, 2), (CONTENT,))[CONTENT])

    def targets(self, x: Tensor, region: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The statistics of style images x [N, 3, 256, 256] with region maps [N, H, W]."""
        return self.statistics(self.features(x)[0], region)

    def statistics(self, features: list[Tensor], region: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Mean and std [N, 4, C] of each feature inside hair, face, background and the whole image."""
        masks = group_masks(region)
        return [_moments(f, F.adaptive_avg_pool2d(masks, (f.shape[-2], f.shape[-1]))) for f in features]

    def style(
        self, statistics: list[tuple[Tensor, Tensor]], targets: list[tuple[Tensor, Tensor]], present: Tensor
    ) -> Tensor:
        """Distance of two `statistics` in units of the target's std, mean over the groups `present` [N, 4] bool."""
        terms = []
        for (mean_a, std_a), (mean_b, std_b) in zip(statistics, targets, strict=True):
            unit = std_b.square().mean(2) + 1e-3
            each = ((mean_a - mean_b).square().mean(2) + (std_a - std_b).square().mean(2)) / unit
            terms.append((each * present).sum() / present.sum().clamp(min=1))
        return torch.stack(terms).mean()


def group_masks(region: Tensor) -> Tensor:
    """Where hair, face, background and the whole image lie, [N, 4, H, W] of 0 and 1, of region maps [N, H, W]."""
    return torch.stack([(region == r).float() for r in range(REGION_COUNT)] + [torch.ones_like(region).float()], 1)


def groups_present(content: Tensor, style: Tensor, least: float = 0.01) -> Tensor:
    """Which of hair, face, background cover at least the share `least` of both maps, and True for the whole: [N, 4]."""
    shares = [torch.stack([(m == r).float().mean((1, 2)) for r in range(REGION_COUNT)], 1) for m in (content, style)]
    both = (shares[0] >= least) & (shares[1] >= least)
    return torch.cat([both, torch.ones_like(both[:, :1])], 1)


def taps(trunk: Trunk, x: Tensor, convolutions: tuple[int, ...]) -> dict[int, Tensor]:
    """The activations of `convolutions` by their number; none deeper is computed."""
    found = {}
    for i, activation in enumerate(trunk.layers(x)):
        if i in convolutions:
            found[i] = activation
        if i == max(convolutions):
            break
    return found


def _moments(f: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    weight = masks.flatten(2)
    weight = weight / weight.sum(2, keepdim=True).clamp(min=1e-3)
    flat = f.flatten(2)
    mean = torch.einsum("nrp,ncp->nrc", weight, flat)
    # Centred before squaring: the difference of a mean square and a squared mean is mostly rounding in TF32. The whole
    # image's mean is near enough to every region's.
    centre = mean[:, -1:].detach()
    squares = torch.einsum("nrp,ncp->nrc", weight, (flat - centre.mT).square())
    return mean, (squares - (mean - centre).square()).clamp(min=1e-6).sqrt()
