"""The losses of the Swapping Autoencoder (Park et al. 2020).

Images come in pairs (0, 1), (2, 3), …; within a pair the structures are swapped. Terms are of each image or patch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.discriminators.patch import PatchDiscriminator
from models.losses.feature_statistics import Terms

SCALES = (1 / 8, 1 / 4)  # of a patch's sides as a share of the image's
IMAGE_R1, PATCH_R1, R1_EVERY = 10.0, 1.0, 16

Judge = Callable[[Tensor], Tensor]


def crops(images: Tensor, draws: Tensor, size: int) -> Tensor:
    """Patches [B, n, 3, size, size] of images [B, 3, H, W].

    `draws` [B * n, 5] in 0..1 are: flip, scale of x and y, place of x and y.
    """
    flip = 2 * draws[:, :1].round() - 1
    scale = SCALES[0] + (SCALES[1] - SCALES[0]) * draws[:, 1:3]
    middle = (2 * draws[:, 3:] - 1) * (1 - scale)
    line = torch.linspace(-1, 1, size, device=images.device)
    x = line * flip * scale[:, :1] + middle[:, :1]
    y = line * scale[:, 1:] + middle[:, 1:]
    grid = torch.stack([x[:, None].expand(-1, size, size), y[:, :, None].expand(-1, size, size)], -1)
    count = len(draws) // len(images)
    patches = F.grid_sample(images.repeat_interleave(count, 0), grid, mode="bilinear", align_corners=False)
    return patches.unflatten(0, (len(images), count))


def swapped(codes: Tensor) -> Tensor:
    """Codes [B, ...] with those of each pair exchanged."""
    return codes.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def discriminator_terms(
    judge: Judge, patch_judge: PatchDiscriminator, real: Tensor, rec: Tensor, mix: Tensor, patches: tuple[Tensor, ...]
) -> Terms:
    """The discriminators' terms; `patches` are reference and other ones of the real images, and those of `mix`."""
    reference, target, mixed = patches
    return {
        "D_real": F.softplus(-judge(real)).flatten(),
        "D_rec": 0.5 * F.softplus(judge(rec)).flatten(),
        "D_mix": 0.5 * F.softplus(judge(mix)).flatten(),
        "PatchD_real": F.softplus(-patch_judge(reference, target)).flatten(),
        "PatchD_mix": F.softplus(patch_judge(reference, mixed)).flatten(),
    }


def generator_terms(
    judge: Judge, patch_judge: PatchDiscriminator, real: Tensor, rec: Tensor, mix: Tensor, patches: tuple[Tensor, ...]
) -> Terms:
    """The terms of encoder and generator; `rec` are the first images, `patches` reference ones and those of `mix`."""
    reference, mixed = patches
    return {
        "G_L1": F.l1_loss(rec, real[: len(rec)])[None],
        "G_GAN_rec": 0.5 * F.softplus(-judge(rec)).flatten(),
        "G_GAN_mix": F.softplus(-judge(mix)).flatten(),
        "G_mix": F.softplus(-_against(patch_judge, reference, mixed)).flatten(),
    }


def _against(judge: PatchDiscriminator, reference: Tensor, patches: Tensor) -> Tensor:
    """The judge's logits, without gradients into the reference's features."""
    mean, features = judge.features(reference).mean(1, keepdim=True).detach(), judge.features(patches)
    return judge.score(mean.expand_as(features), features)


def r1_term(judge: Judge, patch_judge: PatchDiscriminator, real: Tensor, patches: tuple[Tensor, Tensor]) -> Tensor:
    """The gradient penalties of both discriminators [B]; its mean, times R1_EVERY, is a step of its own."""
    real = real.detach().requires_grad_()
    reference, target = (p.detach().requires_grad_() for p in patches)
    (image,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
    of_patches = torch.autograd.grad(patch_judge(reference, target).sum(), (reference, target), create_graph=True)
    squares = [g.square().flatten(1).sum(1) for g in of_patches]
    return 0.5 * IMAGE_R1 * image.square().flatten(1).sum(1) + 0.25 * PATCH_R1 * (squares[0] + squares[1])


def summed(terms: Terms) -> Tensor:
    """The sum of the terms' means."""
    return torch.stack([term.mean() for term in terms.values()]).sum()
