"""The metric of W+: how much each direction changes what an inversion's loss compares, over many faces."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from models.encoders.face_loss import FaceLoss
from models.encoders.optimisation import Metric
from models.generators.latent_renderer import LatentRenderer, narrow_type
from models.generators.mobilestylegan import NUM_WS, MobileStyleGAN, w_layer_of
from models.metrics.lpips import LPIPS
from pipeline import progress, weights

RANK = 512
PROBES = 3  # a face
READ = w_layer_of("head.to_img") + 1  # num_ws that the 256 px cut reads


def blank(drawn: int) -> Metric:
    """Room for what `measure` finds at so many drawn faces, and photos beside them."""
    rank = min(RANK, PROBES * drawn)
    return Metric(torch.zeros(rank), torch.zeros(rank, READ * 512))


def measure(generator: MobileStyleGAN, deviation: Tensor, latents: Iterable[Tensor], rank: int) -> Metric:
    """The metric of W+ in units of `deviation` [512], by PROBES random probes of each latent [1, 18, 512]."""
    dtype = narrow_type(deviation.device)
    loss = FaceLoss(LPIPS("vgg", weights.tensors("lpips-vgg")).to(deviation.device), dtype)
    renderer, found = LatentRenderer(generator, dtype), []
    for i, latent in enumerate(latents):
        signs = torch.Generator().manual_seed(i)
        latent = latent.detach().requires_grad_()
        picture = renderer(latent)
        for probe in range(PROBES):
            value = loss.probe(picture, signs)
            (gradient,) = torch.autograd.grad(value, latent, retain_graph=probe < PROBES - 1)
            found.append((gradient * deviation)[0, :READ].flatten())
        if (i + 1) % 50 == 0:
            progress.say(f"latent metric: probed {i + 1} faces")
    return Metric.solve(torch.stack(found), rank)


def draw(generator: MobileStyleGAN, mean: Tensor, deviation: Tensor, rng: np.random.Generator) -> Tensor:
    """A latent [1, 18, 512] like those of inversions: truncated, a third of them off W in every slot."""
    z = torch.from_numpy(rng.standard_normal((2, 512), dtype=np.float32)).to(mean.device)
    w = mean + float(rng.uniform(0.45, 1.0)) * (generator.map(z) - mean)
    cross = int(rng.integers(1, READ)) if rng.random() < 0.4 else NUM_WS  # two faces, coarse and fine
    latent = torch.stack([w[0] if i < cross else w[1] for i in range(NUM_WS)])
    return moved(latent[None], deviation, rng) if rng.random() < 0.35 else latent[None]


def moved(latent: Tensor, deviation: Tensor, rng: np.random.Generator) -> Tensor:
    """A latent [1, 18, 512] moved off W, every slot by itself, by 0.1 to 0.5 of W's deviation."""
    off = torch.from_numpy(rng.standard_normal((NUM_WS, 512), dtype=np.float32)).to(latent.device)
    return latent + float(rng.uniform(0.1, 0.5)) * deviation * off
