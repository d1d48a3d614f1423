"""Fit the 256 px image head: what the 1024 px output looks like area-averaged, from the features at 128 px.

The pictures are the generator's own, so data is unlimited and the target exact; the weights carry the held-out PSNR.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from models.mobilestylegan import SLOTS, Head256, MobileStyleGAN
from pipeline import checkpoint, weights
from pipeline.context import Context
from pipeline.errors import Fault

OUTPUT = Path("weights/portable/head256.safetensors")
HELD_OUT = 16
TRUNCATION = (0.5, 1.0)
Pair = tuple[Tensor, Tensor, Tensor]
BATCH, CROP = 8, 40  # crops a step, cells a side of the features at 128 px


def run(ctx: Context, *, minutes: float = 20, images: int = 500, shipped: bool = True, output: Path = OUTPUT) -> int:
    """Draw `images` faces, then fit the head for `minutes`; report held-out PSNR (dB, peak 2) and save it.

    Goes on from the profile's head, or with `shipped` False starts from nothing. A face takes 8.5 MB of memory.
    """
    if ctx.profile.generator.kind != "mobilestylegan":
        kind = ctx.profile.generator.kind
        raise Fault(f"fit-head fits MobileStyleGAN's cut; profile {ctx.profile.name} uses {kind}", 2)
    generator = MobileStyleGAN.load(weights.tensors(ctx.profile.generator.weights)).to(ctx.device)
    start = time.monotonic()
    pairs = [draw_pair(generator, seed) for seed in range(images + HELD_OUT)]
    print(f"drew {len(pairs)} pairs in {time.monotonic() - start:.0f} s", flush=True)
    held, train = pairs[:HELD_OUT], pairs[HELD_OUT:]
    head = _initialised(train)
    if shipped:
        head.load_state_dict({name: t.float() for name, t in weights.tensors(ctx.profile.generator.head).items()})
        print(f"held-out PSNR of {ctx.profile.generator.head}: {evaluate(head, held):.2f} dB", flush=True)
    fit(head, train, held, minutes * 60)
    psnr = evaluate(head, held)
    meta = {"what": "256 px head for MobileStyleGAN after layers.4", "command": "hypernst fit-head",
            "data": f"{images} faces drawn from the generator, seeds {HELD_OUT}..{images + HELD_OUT - 1}",
            "held_out_psnr_db": round(psnr, 2), "held_out": HELD_OUT}
    checkpoint.save(output, checkpoint.half(head.state_dict()), meta)
    print(f"held-out PSNR {psnr:.2f} dB over {HELD_OUT} faces; saved {output}")
    return 0


@torch.no_grad()
def draw_pair(generator: MobileStyleGAN, seed: int) -> Pair:
    """Return (features at 128 px fp16, latent [1, 18, 512], area-averaged picture fp16); half the latents mix two w."""
    rng = torch.Generator().manual_seed(seed)
    w = generator.map(torch.randn(2, 512, generator=rng).to(generator.constant.device))
    mean = generator.mean_latent(2000)
    low, high = TRUNCATION
    w = mean + (low + (high - low) * float(torch.rand(1, generator=rng))) * (w - mean)
    cross = int(torch.randint(1, 2 * SLOTS, (1,), generator=rng))
    latent = torch.stack([w[0] if i < cross else w[1] for i in range(SLOTS)])[None]
    kept: list[Tensor] = []
    hook = generator.layers[4].register_forward_hook(lambda _m, _i, out: kept.append(out))
    image = generator(latent)
    hook.remove()
    return kept[0].half(), latent, F.avg_pool2d(image, 4).clamp(-1, 1).half()


def fit(head: Head256, train: Sequence[Pair], held: Sequence[Pair], seconds: float) -> None:
    """Minimise the squared error of the picture by Adam with a cosine schedule over the time given."""
    torch.manual_seed(0)
    modulation = [p for name, p in head.named_parameters() if name.endswith("modulation.weight")]
    others = [p for name, p in head.named_parameters() if not name.endswith("modulation.weight")]
    rates = (1e-4, 3e-3)  # a modulation weight acts through 512 latent values at once
    optimiser = torch.optim.Adam([{"params": modulation}, {"params": others}], betas=(0.9, 0.99))
    start, step = time.monotonic(), 0
    while (done := (time.monotonic() - start) / max(seconds, 1)) < 1:
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / 30) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * done))
        loss = _crop_loss(head, [train[int(i)] for i in torch.randint(len(train), (BATCH,))])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.5f} held-out {evaluate(head, held[:8]):.2f} dB", flush=True)


def _crop_loss(head: Head256, pairs: Sequence[Pair]) -> Tensor:
    """Squared error on one random CROP a face, without its outermost cell: a crop's border is not the picture's."""
    features, latents, targets = [], [], []
    for f, w, t in pairs:
        y, x = (int(v) for v in torch.randint(f.shape[-1] - CROP + 1, (2,)))
        features.append(f[:, :, y : y + CROP, x : x + CROP])
        targets.append(t[:, :, 2 * y : 2 * (y + CROP), 2 * x : 2 * (x + CROP)])
        latents.append(w)
    picture = head(torch.cat(features).float(), torch.cat(latents))
    return F.mse_loss(picture[:, :, 2:-2, 2:-2], torch.cat(targets)[:, :, 2:-2, 2:-2].float())


@torch.no_grad()
def evaluate(head: Head256, pairs: Sequence[Pair]) -> float:
    """Mean PSNR in dB over `pairs`, pictures in [-1, 1]."""
    values = [10 * math.log10(4 / F.mse_loss(head(f.float(), w).clamp(-1, 1), t.float()).item()) for f, w, t in pairs]
    return sum(values) / len(values)


def _initialised(train: Sequence[Pair]) -> Head256:
    """A head whose modulation normalises each feature channel and whose kernels are small and random."""
    head = Head256().to(train[0][0].device)
    std = torch.cat([f for f, _, _ in train[:8]]).float().std((0, 2, 3)) + 1e-3
    with torch.no_grad():
        head.conv1.modulation.bias.copy_(1 / std)
        for conv in (head.conv1, head.conv2):
            conv.depthwise.normal_(0, 0.1)
            conv.depthwise[:, 0, 1, 1] += 1
        for kernel in (head.conv1.pointwise, head.conv2.pointwise, head.to_img.weight):
            kernel.normal_(0, kernel.shape[1] ** -0.5)
        head.to_img.weight.mul_(0.3)
    return head
