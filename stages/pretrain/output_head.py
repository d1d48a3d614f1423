"""Fit the 256 px output head: from features at 128 px to the area average of the 1024 px image.

The generator makes its own training images, so data is unlimited and the target is exact. The file of the weights
records the held-out PSNR.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from models.generators.mobilestylegan import NUM_WS, Head256, MobileStyleGAN
from pipeline import weights
from pipeline.context import Context
from pipeline.progress import Progress
from pipeline.training import checkpoint
from pipeline.training.distributed import ALONE
from pipeline.training.loop import SAVE_EVERY, Loop, holding
from pipeline.training.state import State, advance
from stages.loaders.load import load, of_kind

NAME = "fit-head"
OUTPUT = Path("weights/portable/head256.safetensors")
HELD_OUT = 16
TRUNCATION = (0.5, 1.0)
Pair = tuple[Tensor, Tensor, Tensor]
BATCH, CROP = 8, 40  # crops per step, cells per side of the features at 128 px
RATES, WARM_UP = (1e-4, 3e-3), 30  # of modulations (their weights act through 512 latent values at once), of others


@holding(NAME)
def run(
    ctx: Context,
    *,
    images: int = 500,
    steps: int = 6000,
    minutes: float | None = None,
    shipped: bool = True,
    output: Path = OUTPUT,
) -> int:
    """Generate `images` faces, fit the head until `steps` in all or `minutes` of this call, save it with its PSNR.

    Starts from the profile's head, or with `shipped` False from an untrained one; run again to resume. The PSNR (dB,
    peak 2) is that of HELD_OUT faces. A face takes 8.5 MB of memory.
    """
    kind = of_kind(ctx, {"mobilestylegan": MobileStyleGAN}, NAME)
    generator = load(ctx.profile.generator.weights, kind.load).to(ctx.device)
    pairs = []
    progress = Progress(f"{NAME}: faces", images + HELD_OUT, "face")
    for seed in range(images + HELD_OUT):
        pairs.append(sample_pair(generator, seed))
        progress.add(1)
    progress.close()
    held, train = pairs[:HELD_OUT], pairs[HELD_OUT:]
    head = _initialised(train, ctx.profile.seed, ctx.device)
    start = ctx.profile.generator.head if shipped else ""
    if start:
        head.load_state_dict({name: t.float() for name, t in weights.tensors(start).items()})
    optimiser, folder = _adam(head), ctx.run / NAME
    recipe = {
        "generator": weights.sha256(ctx.profile.generator.weights),  # at its full size, without a head
        "images": images,
        "steps": steps,
        "seed": ctx.profile.seed,
        "start": weights.sha256(start) if start else "",
    }
    state = State(folder / "checkpoint.safetensors", {"head": head}, {"adam": optimiser}, recipe)
    state.resume()
    loop = Loop.of(NAME, state, steps, minutes=minutes, images=BATCH, save_every=SAVE_EVERY)
    with loop:
        for step in loop:
            rng = torch.Generator().manual_seed(ctx.profile.seed * steps + step)
            loop.tell(train_step(head, optimiser, train, step / steps, step, rng, loop))
    psnr = evaluate(head, held)
    meta = {
        "what": "256 px head for MobileStyleGAN after layers.4",
        "steps": state.step,
        "command": f"hypernst {NAME} --images {images} --steps {state.step}",
        "data": f"{images} faces drawn from the generator, seeds {HELD_OUT}..{images + HELD_OUT - 1}",
        "held_out_psnr_db": round(psnr, 2),
        "held_out": HELD_OUT,
    }
    checkpoint.save(output, checkpoint.half(head.state_dict()), meta)
    print(f"held-out PSNR {psnr:.2f} dB over {HELD_OUT} faces; saved {output}")
    return 0


@torch.no_grad()
def sample_pair(generator: MobileStyleGAN, seed: int) -> Pair:
    """Features at 128 px in fp16, latent [1, 18, 512], area-averaged image in fp16; half of the latents mix two w."""
    rng = torch.Generator().manual_seed(seed)
    w = generator.map(torch.randn(2, 512, generator=rng).to(generator.constant.device))
    mean = generator.mean_latent(2000)
    low, high = TRUNCATION
    w = mean + (low + (high - low) * float(torch.rand(1, generator=rng))) * (w - mean)
    cross = int(torch.randint(1, 2 * NUM_WS, (1,), generator=rng))
    latent = torch.stack([w[0] if i < cross else w[1] for i in range(NUM_WS)])[None]
    outputs: list[Tensor] = []
    hook = generator.layers[4].register_forward_hook(lambda _m, _i, out: outputs.append(out))
    image = generator(latent)
    hook.remove()
    pair = outputs[0].half(), latent, F.avg_pool2d(image, 4).clamp(-1, 1).half()
    return pair[0].cpu(), pair[1].cpu(), pair[2].cpu()  # hundreds of them do not fit a GPU


def train_step(
    head: Head256,
    optimiser: torch.optim.Optimizer,
    train: Sequence[Pair],
    done: float,
    step: int,
    rng: torch.Generator,
    loop: Loop,
) -> dict[str, float]:
    """A step of Adam on the squared error of crops; the rates follow a cosine over the share `done` of the run."""
    for group, rate in zip(optimiser.param_groups, RATES, strict=True):
        group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * done))
    chosen = torch.randint(len(train), (BATCH,), generator=rng)
    loss = _crop_loss(head, [train[int(i)] for i in chosen], rng)
    loss.backward()
    loop.count(advance(optimiser, ALONE))
    return {"loss": loss.item()}


def _adam(head: Head256) -> torch.optim.Optimizer:
    modulation = [p for name, p in head.named_parameters() if name.endswith("modulation.weight")]
    others = [p for name, p in head.named_parameters() if not name.endswith("modulation.weight")]
    return torch.optim.Adam([{"params": modulation}, {"params": others}], betas=(0.9, 0.99))


def _crop_loss(head: Head256, pairs: Sequence[Pair], rng: torch.Generator) -> Tensor:
    """Squared error on one random CROP per face. Its outermost cell is left out: a crop's border is not the image's."""
    features, latents, targets = [], [], []
    for f, w, t in pairs:
        y, x = (int(v) for v in torch.randint(f.shape[-1] - CROP + 1, (2,), generator=rng))
        features.append(f[:, :, y : y + CROP, x : x + CROP])
        targets.append(t[:, :, 2 * y : 2 * (y + CROP), 2 * x : 2 * (x + CROP)])
        latents.append(w)
    device = head.to_img.weight.device
    seen, latent, target = (torch.cat(part).to(device) for part in (features, latents, targets))
    image = head(seen.float(), latent)
    return F.mse_loss(image[:, :, 2:-2, 2:-2], target[:, :, 2:-2, 2:-2].float())


@torch.no_grad()
def evaluate(head: Head256, pairs: Sequence[Pair]) -> float:
    """Mean PSNR in dB over `pairs`, of images in [-1, 1]."""
    device, values = head.to_img.weight.device, []
    for f, w, t in (tuple(part.to(device) for part in pair) for pair in pairs):
        values.append(10 * math.log10(4 / F.mse_loss(head(f.float(), w).clamp(-1, 1), t.float()).item()))
    return sum(values) / len(values)


def _initialised(train: Sequence[Pair], seed: int, device: str) -> Head256:
    """A head whose modulation normalises each feature channel and whose kernels are small and random."""
    torch.manual_seed(seed)
    head = Head256().to(device)
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
