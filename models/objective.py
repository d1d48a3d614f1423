"""What a rendering is judged by in the two passes of training (paper section 3.3, Eqs. 3-6)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import gan, windows
from models.discriminators import ImageDiscriminator, PatchDiscriminator
from models.lpips import LPIPS
from models.style_term import StyleTerm, groups_present


@dataclass(frozen=True)
class Batch:
    """Samples on the device: pictures [N, 3, S, S] in [-1, 1], latents, regions [N, S, S] u8, codes [N, 4, 256]."""

    image: Tensor
    latent: Tensor
    region: Tensor
    codes: Tensor


@dataclass(frozen=True)
class Weights:
    """Factors of the terms (Eq. 6): lambda1 scales reconstruction, lambda2 the critics; style, content are auxiliary."""

    lambda1: float
    lambda2: float
    lpips: float
    identity: float
    style: float
    content: float


class Reconstruction(nn.Module):
    """Eq. 3 as L2 + LPIPS-alex between the rendering with its own codes and the picture, and if given the distance of
    `identity`, a network of two pictures [N, 3, 256, 256] that answers [N]."""

    def __init__(self, lpips: LPIPS, weights: Weights, identity: nn.Module | None = None) -> None:
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


class Stylisation(nn.Module):
    """Eqs. 4-5 for the generator's side: image critic, region-matched patch critic, the auxiliary term if weighted.

    `by_region` False compares patches from anywhere, as many of them (Table 4's "no mask loss").
    """

    def __init__(self, image_critic: ImageDiscriminator, patch_critic: PatchDiscriminator, style: StyleTerm | None,
                 weights: Weights, patches: int, patch: int, by_region: bool = True) -> None:
        super().__init__()
        self.image_critic, self.patch_critic, self.term = image_critic, patch_critic, style
        self.weights, self.patches, self.patch, self.by_region = weights, patches, patch, by_region

    def forward(self, y: Tensor, content: Batch, style: Batch, rng: np.random.Generator,
                critics: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of renderings y of content i in style i, and its terms; `critics` scales lambda2."""
        terms: dict[str, Tensor] = {}
        loss = y.new_zeros(())
        if self.weights.lambda2 * critics:
            terms["adversarial"] = gan.generator_loss(self.image_critic(y))
            matched = self.match(content, style, rng)
            if len(matched):
                fake = gan.crops(y, matched.sample, matched.fake)
                reference = gan.crops(style.image, matched.sample, matched.reference)
                with torch.no_grad():
                    mean = self.patch_critic.features(reference).mean(1, keepdim=True)
                features = self.patch_critic.features(fake)
                terms["patch"] = gan.generator_loss(self.patch_critic.score(mean.expand_as(features), features))
            loss = loss + self.weights.lambda2 * critics * torch.stack(list(terms.values())).sum()
        if self.term is not None:
            ours, shape = self.term.features(y)
            with torch.no_grad():
                theirs = self.term.targets(style.image, style.region)
                wanted = self.term.shape(content.image)
            present = groups_present(content.region, style.region)
            present[:, :-1] &= self.by_region
            terms["style"] = self.term.style(self.term.statistics(ours, content.region), theirs, present)
            terms["content"] = F.mse_loss(shape, wanted)
            loss = loss + self.weights.style * terms["style"] + self.weights.content * terms["content"]
        return loss, terms

    def match(self, content: Batch, style: Batch, rng: np.random.Generator) -> gan.Matched:
        """Draw the patches of this batch's pairs."""
        maps = [batch.region.cpu().numpy() for batch in (content, style)]
        if not self.by_region:
            maps = [np.zeros_like(m) for m in maps]
        count = self.patches * (1 if self.by_region else len(windows.REGIONS))
        return gan.match(*maps, rng, size=self.patch, count=count)

    def critic(self, y: Tensor, content: Batch, style: Batch, rng: np.random.Generator,
               penalty_every: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The critics' own loss on detached renderings; R1 is added when `penalty_every` (taken lazily) is not 0."""
        real = style.image.detach().requires_grad_(penalty_every > 0)
        real_scores = self.image_critic(real)
        terms = {"critic": gan.critic_loss(real_scores, self.image_critic(y.detach()))}
        if penalty_every:
            terms["r1"] = gan.r1(real_scores, [real], 10.0, every=penalty_every)
        matched = self.match(content, style, rng)
        if len(matched):
            images = style.image.detach()
            reference = gan.crops(images, matched.sample, matched.reference).requires_grad_(penalty_every > 0)
            real_patches = gan.crops(images, matched.sample, matched.real).requires_grad_(penalty_every > 0)
            fake_patches = gan.crops(y.detach(), matched.sample, matched.fake)
            scores = self.patch_critic(reference, real_patches)
            terms["patch_critic"] = gan.critic_loss(scores, self.patch_critic(reference, fake_patches))
            if penalty_every:
                terms["patch_r1"] = gan.r1(scores, [reference, real_patches], 0.5, every=penalty_every)
        return torch.stack(list(terms.values())).sum(), terms
