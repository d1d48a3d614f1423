"""Train the inverter: faces drawn from the generator have known latents, real photos only have to look right.

First the linear path is solved on drawn faces. Then each step takes drawn faces (latent loss, in units of W's
deviation) and real pictures (L2 + LPIPS-alex of the generated picture); a pull of the slots towards one another keeps
latents editable (e4e's delta loss, its Eqs. 5-8).
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.inverter import Inverter, pool, solve_linear
from models.lpips import LPIPS
from models.mobilestylegan import SLOTS, MobileStyleGAN
from pipeline import checkpoint, pictures, weights
from pipeline.context import Context
from pipeline.errors import Fault
from stages import networks

OUTPUT = Path("weights/portable/inverter.safetensors")
SAVE_EVERY = 100
LPIPS_WEIGHT, LATENT_WEIGHT, OFFSET_WEIGHT = 0.8, 0.5, 0.02


def run(ctx: Context, *, data: Path, minutes: float = 60, faces: int = 2500,
        resume: bool = True, output: Path = OUTPUT) -> int:
    """Solve the linear path on `faces` drawn faces, then train for `minutes` with the pictures of folder `data`.

    0 minutes saves the linear path alone. Resumes from the checkpoint in `ctx.run`; saves `output`.
    """
    torch.manual_seed(ctx.profile.seed)
    generator = networks.generator(ctx)
    if not isinstance(generator, MobileStyleGAN):
        raise Fault(f"train-inverter trains for MobileStyleGAN; profile {ctx.profile.name} has "
                    f"{ctx.profile.generator.kind}, whose encoder is e4e", 2)
    lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)
    mapped = generator.map(torch.randn(20000, 512, generator=torch.Generator().manual_seed(0)).to(ctx.device))
    net = Inverter(mapped.mean(0), mapped.std(0), refine=minutes > 0).to(ctx.device)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-4, betas=(0.9, 0.99))
    state_file = ctx.run / "train-inverter.safetensors"
    with torch.no_grad():
        mean_face = generator(net.mean.expand(1, SLOTS, -1)).clamp(-1, 1)
    done, spent = 0, 0.0
    if resume and state_file.exists():
        tensors, meta = checkpoint.load(state_file)
        net.load_state_dict({n.removeprefix("net."): t for n, t in tensors.items() if n.startswith("net.")})
        checkpoint.restore_optimiser(optimiser, tensors, "adam")
        done, spent = meta["step"], meta["seconds"]
    else:
        solve(net, generator, lpips, faces)
        if net.refiner is not None:
            save_state(state_file, net, optimiser, 0, 0.0)
    photos = pictures.load_folder(data, 256)
    start, log = time.monotonic() - spent, []
    while (elapsed := time.monotonic() - start) < minutes * 60:
        for group in optimiser.param_groups:
            group["lr"] = 5e-4 * min(1.0, (done + 1) / 50) * max(0.05, min(1.0, 2 * (1 - elapsed / (minutes * 60))))
        log.append(train_step(net, generator, lpips, optimiser, photos, mean_face,
                              np.random.default_rng([ctx.profile.seed, done])))
        done += 1
        if done % 20 == 0:
            mean = {k: round(float(np.mean([row[k] for row in log])), 4) for k in log[0]}
            print(json.dumps({"step": done, "minutes": round(elapsed / 60, 1)} | mean), flush=True)
            log.clear()
        if done % SAVE_EVERY == 0:
            save_state(state_file, net, optimiser, done, time.monotonic() - start)
    if net.refiner is not None:
        save_state(state_file, net, optimiser, done, time.monotonic() - start)
    meta = {"what": "e4e-style inverter for MobileStyleGAN", "steps": done, "minutes": round(minutes, 1),
            "data": f"{len(photos)} pictures of {data.name}, and faces drawn from the generator",
            "command": f"hypernst train-inverter --data {data.name} --minutes {minutes:g}"}
    checkpoint.save(output, checkpoint.half(net.state_dict()), meta)
    print(f"saved {output} after {done} steps")
    return 0


def save_state(path: Path, net: Inverter, optimiser: torch.optim.Optimizer, step: int, seconds: float) -> None:
    """Write everything a resumed run needs."""
    tensors = {f"net.{n}": t for n, t in net.state_dict().items()} | checkpoint.optimiser_tensors(optimiser, "adam")
    checkpoint.save(path, tensors, {"step": step, "seconds": seconds})


def train_step(net: Inverter, generator: MobileStyleGAN, lpips: LPIPS, optimiser: torch.optim.Optimizer,
               photos: np.ndarray, mean_face: Tensor, rng: np.random.Generator, drawn: int = 2,
               real: int = 4) -> dict[str, float]:
    """One optimiser step over `drawn` generated faces and `real` of `photos` [N, 256, 256, 3] u8; its losses."""
    optimiser.zero_grad()
    sums = {"latent": 0.0, "lpips": 0.0, "l2": 0.0}
    device = net.mean.device
    for _ in range(drawn):
        target = draw_latent(generator, net.mean, rng)
        with torch.no_grad():
            x = generator(target).clamp(-1, 1)
        for latent in net.passes(x, lpips.trunk, generator, 1 + int(rng.random() < 0.4), mean_face):
            loss = ((latent - target) / net.deviation).square().mean()
            (LATENT_WEIGHT * loss / drawn).backward(retain_graph=True)
        sums["latent"] += float(loss.detach()) / drawn
    for index in rng.integers(len(photos), size=real):
        x = pictures.to_tensor(photos[index : index + 1]).to(device)
        for latent in net.passes(x, lpips.trunk, generator, 1 + int(rng.random() < 0.4), mean_face):
            y = generator(latent)
            distance, l2 = lpips(y, x).mean(), F.mse_loss(y, x)
            spread = ((latent - latent.mean(1, keepdim=True)) / net.deviation).square().mean()
            ((LPIPS_WEIGHT * distance + l2 + OFFSET_WEIGHT * spread) / real).backward(retain_graph=True)
        sums["lpips"] += float(distance.detach()) / real
        sums["l2"] += float(l2.detach()) / real
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()
    return sums


@torch.no_grad()
def solve(net: Inverter, generator: MobileStyleGAN, lpips: LPIPS, faces: int) -> None:
    """Solve the linear path on `faces` drawn faces, with the ridge that does best on a tenth held out."""
    pooled, latents = [], []
    for i in range(faces):
        x, latent = draw_face(net, generator, i)
        pooled.append(pool(x, lpips.trunk(x)))
        latents.append((latent[:, 0] - net.mean) / net.deviation)
        if (i + 1) % 250 == 0:
            print(json.dumps({"drawn": i + 1}), flush=True)
    x, y, held = torch.cat(pooled), torch.cat(latents), max(1, faces // 10)
    errors = {}
    for ridge in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        squeeze, expand = solve_linear(x[held:], y[held:], ridge)
        guess = (x[:held] - x[held:].mean(0)) @ squeeze.T @ expand.T
        errors[ridge] = float((guess - (y[:held] - y[held:].mean(0))).square().mean() / y[:held].square().mean())
    best = min(errors, key=errors.__getitem__)
    print(json.dumps({"unexplained variance by ridge": {str(k): round(v, 4) for k, v in errors.items()}}), flush=True)
    squeeze, expand = solve_linear(x, y, best)
    net.squeeze.weight.copy_(squeeze)
    net.expand.weight.copy_(expand)


def draw_face(net: Inverter, generator: MobileStyleGAN, index: int) -> tuple[Tensor, Tensor]:
    """Picture [1, 3, 256, 256] and latent [1, 18, 512] of the linear path's face number `index`."""
    latent = draw_latent(generator, net.mean, np.random.default_rng([1, index]), mixing=False)
    return generator(latent).clamp(-1, 1), latent


def draw_latent(generator: MobileStyleGAN, mean: Tensor, rng: np.random.Generator, mixing: bool = True) -> Tensor:
    """A truncated W latent [1, 18, 512], with `mixing` a third of the time of two faces."""
    z = torch.from_numpy(rng.standard_normal((2, 512), dtype=np.float32)).to(mean.device)
    w = mean + rng.uniform(0.5, 1.0) * (generator.map(z) - mean)
    cross = int(rng.integers(1, 3 * SLOTS)) if mixing else SLOTS
    return torch.stack([w[0] if i < cross else w[1] for i in range(SLOTS)])[None]
