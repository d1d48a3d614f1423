"""ContraAST's discriminator: three networks, each of which sees the images at half the size of the one before."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS, SCALES = (64, 128, 256, 512), 3


def _judge() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS:
        layers.append(nn.Conv2d(channels, width, 4, 2, 1))
        layers += [nn.InstanceNorm2d(width), nn.LeakyReLU(0.2)] if layers[1:] else [nn.LeakyReLU(0.2)]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, 1, 1))


class MultiscaleDiscriminator(nn.Module):
    """Scores [N, 1, h, w] of images [N, 3, H, W] in [0, 1] at each of three scales; sides of at least 128 px."""

    def __init__(self) -> None:
        super().__init__()
        self.models = nn.ModuleDict({f"disc_{i}": _judge() for i in range(SCALES)})

    def forward(self, images: Tensor) -> list[Tensor]:
        scores = []
        for judge in self.models.values():
            scores.append(judge(images))
            images = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
        return scores

    def loss(self, images: Tensor, target: float) -> Tensor:
        """The mean squared distance of the scores to `target`, 1 for real and 0 for fake, summed over the scales."""
        return torch.stack([(score - target).square().mean() for score in self(images)]).sum()
