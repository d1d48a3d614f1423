"""The objectives of the two training phases (paper section 3.3, Eqs. 3-6)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.losses import adversarial, region_patches
from models.losses.region_style import RegionStyleLoss, groups_present
from models.metrics.lpips import LPIPS
from models.regions import REGION_COUNT


@dataclass(frozen=True)
class Batch:
    """Samples on the device: images [N, 3, S, S] in [-1, 1], latents, regions [N, S, S] u8, codes [N, 4, 256]."""

    image: Tensor
    latent: Tensor
    region: Tensor
    codes: Tensor
    labels: NDArray[np.uint8] | None = None  # the region maps on the CPU, so that no GPU is waited for

    def maps(self) -> NDArray[np.uint8]:
        """The region maps [N, S, S] on the CPU."""
        return self.region.cpu().numpy() if self.labels is None else self.labels


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms (Eq. 6): lambda1 reconstruction, lambda2 discriminators; style and content are auxiliary."""

    lambda1: float
    lambda2: float
    lpips: float
    identity: float
    style: float
    content: float


class Reconstruction(nn.Module):
    """Eq. 3: L2 + LPIPS-alex between the rendering with its own codes and the image.

    `identity`, if given, adds its distance [N] between two images [N, 3, 256, 256].
    """

    def __init__(self, lpips: LPIPS, weights: LossWeights, identity: nn.Module | None = None) -> None:
        super().__init__()
        self.lpips, self.weights, self.identity = lpips, weights, identity

    def forward(self, y: Tensor, content: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss, and its terms."""
        terms = {"l2": F.mse_loss(y, content.image), "lpips": self.lpips(y, content.image).mean()}
        loss = terms["l2"] + self.weights.lpips * terms["lpips"]
        if self.identity is not None:
            terms["identity"] = self.identity(y, content.image).mean()
            loss = loss + self.weights.identity * terms["identity"]
        return self.weights.lambda1 * loss, terms


class Stylization(nn.Module):
    """Eqs. 4-5 for the generator: both discriminators, and the auxiliary region style loss if it is given.

    `by_region` False compares the same number of patches from anywhere (Table 4's "no mask loss").
    """

    def __init__(
        self,
        image_discriminator: ImageDiscriminator,
        patch_discriminator: PatchDiscriminator,
        style: RegionStyleLoss | None,
        weights: LossWeights,
        patches: int,
        patch: int,
        by_region: bool = True,
    ) -> None:
        super().__init__()
        self.image_discriminator, self.patch_discriminator, self.term = image_discriminator, patch_discriminator, style
        self.weights, self.patches, self.patch, self.by_region = weights, patches, patch, by_region

    def forward(
        self, y: Tensor, content: Batch, style: Batch, groups: region_patches.PatchGroups, discriminators: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of renderings y of content i in style i, and its terms; `discriminators` scales lambda2."""
        terms: dict[str, Tensor] = {}
        loss = y.new_zeros(())
        if self.weights.lambda2 * discriminators:
            terms["adversarial"] = adversarial.generator_loss(self.image_discriminator(y))
            if len(groups):
                fake = region_patches.crops(y, groups.sample, groups.fake)
                reference = region_patches.crops(style.image, groups.sample, groups.reference)
                with torch.no_grad():
                    mean = self.patch_discriminator.features(reference).mean(1, keepdim=True)
                features = self.patch_discriminator.features(fake)
                terms["patch"] = adversarial.generator_loss(
                    self.patch_discriminator.score(mean.expand_as(features), features)
                )
            loss = loss + self.weights.lambda2 * discriminators * torch.stack(list(terms.values())).sum()
        if self.term is not None:
            activations, deep = self.term.features(y)
            with torch.no_grad():
                style_target = self.term.targets(style.image, style.region)
                content_target = self.term.content_features(content.image)
            present = groups_present(content.region, style.region)
            present[:, :-1] &= self.by_region
            terms["style"] = self.term.style(self.term.statistics(activations, content.region), style_target, present)
            terms["content"] = F.mse_loss(deep, content_target)
            loss = loss + self.weights.style * terms["style"] + self.weights.content * terms["content"]
        return loss, terms

    def sample_patch_groups(self, content: Batch, style: Batch, rng: np.random.Generator) -> region_patches.PatchGroups:
        """Sample the patches of this batch's pairs."""
        content_map, style_map = content.maps(), style.maps()
        if not self.by_region:
            content_map, style_map = np.zeros_like(content_map), np.zeros_like(style_map)
        count = self.patches * (1 if self.by_region else REGION_COUNT)
        map_side, image_side = content_map.shape[-1], content.image.shape[-1]
        size = max(1, self.patch * map_side // image_side)  # of an image's patch, on the map
        groups = region_patches.sample_patch_groups(content_map, style_map, rng, size=size, count=count)
        return groups if map_side == image_side else groups.on_images(map_side, image_side, self.patch)

    def discriminator(
        self, y: Tensor, style: Batch, groups: region_patches.PatchGroups
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminators' own loss on detached renderings, and its terms."""
        y = y.detach()
        terms = {
            "discriminator": adversarial.discriminator_loss(
                self.image_discriminator(style.image), self.image_discriminator(y)
            )
        }
        if len(groups):
            reference, real = self._real(style, groups)
            fake = region_patches.crops(y, groups.sample, groups.fake)
            terms["patch_discriminator"] = adversarial.discriminator_loss(
                self.patch_discriminator(reference, real), self.patch_discriminator(reference, fake)
            )
        return torch.stack(list(terms.values())).sum(), terms

    def penalties(
        self, style: Batch, groups: region_patches.PatchGroups, every: int
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """R1 penalties of the discriminators, taken once every `every` steps: one loss and its terms at a time.

        Their second derivatives need more memory than all else in a step, so each image and each group of patches is
        penalised on its own. The losses add up to that of the whole batch.
        """
        for image in style.image.detach().split(1):
            real = image.requires_grad_()
            penalty = adversarial.r1(self.image_discriminator(real), [real], 10.0, every=every) / len(style.image)
            yield penalty, {"r1": penalty}
        if len(groups):
            for parts in zip(*(side.detach().split(1) for side in self._real(style, groups)), strict=True):
                inputs = [part.requires_grad_() for part in parts]
                penalty = adversarial.r1(self.patch_discriminator(*inputs), inputs, 0.5, every=every) / len(groups)
                yield penalty, {"patch_r1": penalty}

    @staticmethod
    def _real(style: Batch, groups: region_patches.PatchGroups) -> tuple[Tensor, Tensor]:
        """Reference patches and real patches, both of the style image."""
        return (
            region_patches.crops(style.image, groups.sample, groups.reference),
            region_patches.crops(style.image, groups.sample, groups.real),
        )
