"""Train the hypernetwork on the shards: reconstruction of both collections, then stylisation (paper section 3.3-3.5).

Every random draw is a function of (seed, step), so the same command continues a killed run exactly.
"""

import itertools
import json
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models import hypernetwork
from models.discriminators import ImageDiscriminator, PatchDiscriminator
from models.hypernetwork import HyperNetwork
from models.layers import Generator
from models.lpips import LPIPS
from models.objective import Batch, Reconstruction, Stylisation, Weights
from models.style_term import StyleTerm
from models.vgg import Trunk
from pipeline import checkpoint, shards, weights
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.files import write_atomic
from pipeline.profile import Train
from pipeline.stream import Loader, Samples
from stages import latents, networks

SAVE_EVERY = 50
PENALTY_EVERY = 16


@dataclass
class State:
    """All that a checkpoint holds."""

    hyper: HyperNetwork
    ema: HyperNetwork
    image_critic: ImageDiscriminator
    patch_critic: PatchDiscriminator
    optimiser: torch.optim.Optimizer
    critic_optimiser: torch.optim.Optimizer
    step: int = 0
    phase: str = "reconstruct"
    skipped: int = 0

    def modules(self) -> dict[str, torch.nn.Module]:
        """The networks by the prefix of their tensors in a checkpoint."""
        return {"hyper": self.hyper, "ema": self.ema,
                "image_critic": self.image_critic, "patch_critic": self.patch_critic}


def run(ctx: Context, *, steps: int | None = None, shipped: bool = True, export: Path | None = None,
        minutes: float | None = None) -> int:
    """Train in `ctx.run` until `steps` in all (default: the profile's), or `minutes` of this call are over.

    A new run starts from the shipped weights in the stylisation phase, or with `shipped` False from nothing in the
    reconstruction phase. `export` writes the averaged weights in fp16.
    """
    settings = ctx.profile.train
    content, style = (Samples(ctx.shards, name, "train") for name in ("content", "style"))
    latents.refuse_others(ctx, shards.read_index(ctx.shards)[0], ctx.shards)
    generator = networks.generator(ctx)
    state = _start(ctx, generator, shipped)
    total = steps if steps is not None else settings.reconstruction_steps + settings.stylisation_steps
    if state.step >= total and not export:
        print(f"train: {state.step} steps in {ctx.run}, nothing left to do")
        return 0
    pairs = _pairs(content, style, ctx, state.step)
    passes = _passes(ctx, state)
    _trim_log(ctx.run / "log.jsonl", state.step)
    deadline = time.monotonic() + minutes * 60 if minutes else float("inf")
    with _Stop() as stop, open(ctx.run / "log.jsonl", "a") as log, \
            tqdm(total=total, initial=state.step, desc="train", unit="step", mininterval=1) as bar:
        while state.step < total and not stop.asked and time.monotonic() < deadline:
            _enter_phase(state, settings)
            terms = train_step(state, generator, passes, pairs, settings, ctx)
            state.step += 1
            row = {"step": state.step, "phase": state.phase, "time": round(time.time(), 1), **terms}
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in terms.items()}, refresh=False)
            if state.step % SAVE_EVERY == 0:
                save(ctx, state)
    save(ctx, state)
    if export:
        what = f"hypernetwork for {ctx.profile.generator.kind}, {ctx.profile.generator.size} px"
        meta = {"what": what, "steps": state.step, "phase": state.phase,
                "contents": len(content), "styles": len(style), "command": "hypernst train"}
        checkpoint.save(export, checkpoint.half(state.ema.state_dict()), meta)
    if stop.asked:
        raise Fault(f"train: stopped after step {state.step} of {total}; run the same command again to go on")
    skipped = f", {state.skipped} skipped as not finite" if state.skipped else ""
    print(f"train: {state.step} steps in {ctx.run}{skipped}")
    return 0


class _Stop:
    """Turns Ctrl-C and SIGTERM into a wish to save and leave after the current step, while it is entered."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_Stop":
        self._former = {name: signal.signal(name, self._ask) for name in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._former.items():
            signal.signal(name, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True


def _trim_log(path: Path, step: int) -> None:
    """Drop what a killed run logged after its last checkpoint: those steps are taken again."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_atomic(path, "".join(kept).encode())


def _start(ctx: Context, generator: Generator, shipped: bool) -> State:
    """The run's checkpoint if there is one, else the shipped or fresh weights."""
    settings = ctx.profile.train
    torch.manual_seed(ctx.profile.seed)
    table = generator.layer_table()
    hyper, ema = (networks.new_hypernetwork(ctx, table).to(ctx.device) for _ in range(2))
    size, base = ctx.profile.generator.size, settings.image_critic_base
    image_critic = ImageDiscriminator(size, base=base, top=max(128, base // 64)).to(ctx.device)
    patch_critic = PatchDiscriminator(width=settings.patch_critic_width).to(ctx.device)
    critics = [*image_critic.parameters(), *patch_critic.parameters()]
    state = State(hyper, ema.requires_grad_(False), image_critic, patch_critic,
                  torch.optim.Adam(hyper.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99)),
                  torch.optim.Adam(critics, lr=settings.critic_learning_rate, betas=(0.0, 0.99)))
    path = ctx.run / "checkpoint.safetensors"
    if path.exists():
        tensors, meta = checkpoint.load(path)
        for prefix, module in state.modules().items():
            own = {n.removeprefix(prefix + "."): t for n, t in tensors.items() if n.startswith(prefix + ".")}
            module.load_state_dict(own)
        checkpoint.restore_optimiser(state.optimiser, tensors, "adam")
        checkpoint.restore_optimiser(state.critic_optimiser, tensors, "critic_adam")
        state.step, state.phase, state.skipped = meta["step"], meta["phase"], meta["skipped"]
        return state
    if shipped:
        state.phase = networks.start(ctx, hyper)
    ema.load_state_dict(hyper.state_dict())
    ctx.run.mkdir(parents=True, exist_ok=True)
    return state


def save(ctx: Context, state: State) -> None:
    """Write the whole state to the run's checkpoint."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in state.modules().items():
        tensors |= {f"{prefix}.{n}": t for n, t in module.state_dict().items()}
    tensors |= checkpoint.optimiser_tensors(state.optimiser, "adam")
    tensors |= checkpoint.optimiser_tensors(state.critic_optimiser, "critic_adam")
    meta = {"step": state.step, "phase": state.phase, "skipped": state.skipped, "profile": ctx.profile.name}
    checkpoint.save(ctx.run / "checkpoint.safetensors", tensors, meta)


def _enter_phase(state: State, settings: Train) -> None:
    """Switch to stylisation when its time has come, and freeze what the phase does not train (section 3.4)."""
    if state.phase == "reconstruct" and state.step >= settings.reconstruction_steps:
        state.phase = "stylize"
    try:
        state.hyper.train_only(None if state.phase == "reconstruct" else settings.start_layer)
    except ValueError as e:
        raise Fault(f"train.start_layer: {e}", 2) from e


@dataclass(frozen=True)
class Passes:
    """The two objectives."""

    reconstruction: Reconstruction
    stylisation: Stylisation


def _passes(ctx: Context, state: State) -> Passes:
    s = ctx.profile.train
    factors = Weights(s.lambda1, s.lambda2, s.lpips, s.identity, s.style, s.content)
    lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)
    term = StyleTerm(Trunk("vgg16", weights.tensors("lpips-vgg")).to(ctx.device)) if s.style or s.content else None
    stylisation = Stylisation(state.image_critic, state.patch_critic, term, factors, s.patches, s.patch)
    return Passes(Reconstruction(lpips, factors), stylisation)


def train_step(state: State, generator: Generator, passes: Passes, pairs: Iterator[tuple[Batch, Batch]],
               settings: Train, ctx: Context) -> dict[str, float]:
    """One optimiser step of the current phase over `settings.batch` samples; the mean of its loss terms."""
    rng = np.random.default_rng([ctx.profile.seed, state.step])
    state.optimiser.zero_grad(set_to_none=True)
    state.critic_optimiser.zero_grad(set_to_none=True)
    sums: dict[str, list[float]] = {}
    count = _micro_batches(settings)
    for contents, styles in itertools.islice(pairs, count):
        if state.phase == "reconstruct":
            own = contents if rng.random() < 0.5 else styles
            terms = _reconstruct(state, generator, passes, own, settings, rng, count)
        else:
            terms = _stylise(state, generator, passes, contents, styles, settings, rng, count)
            if state.step % settings.reconstruction_every == 0:
                terms |= _reconstruct(state, generator, passes, contents, settings, rng, count)
        for name, value in terms.items():
            sums.setdefault(name, []).append(value)
    means = {name: round(float(np.mean(values)), 5) for name, values in sums.items()}
    if not all(np.isfinite(v) for v in means.values()):
        state.skipped += 1
        if state.skipped > 100:
            raise Fault(f"train: {state.skipped} steps were not finite; lower train.learning_rate or start anew")
        return means
    torch.nn.utils.clip_grad_norm_([p for p in state.hyper.parameters() if p.grad is not None], 1.0)
    state.optimiser.step()
    if "critic" in means:
        state.critic_optimiser.step()
    with torch.no_grad():
        for average, current in zip(state.ema.parameters(), state.hyper.parameters(), strict=True):
            average.lerp_(current, 1 - settings.ema)
    return means


def refine(state: State, generator: Generator, content: Batch, codes: Tensor, settings: Train,
           rng: np.random.Generator) -> Iterator[Tensor]:
    """Yield the renderings whose loss is taken, of `settings.refinements` with deltas adding up, detached between."""
    chosen = int(rng.integers(settings.refinements)) if settings.losses_at == "one" else None
    with torch.no_grad():
        y_hat = generator(content.latent).clamp(-1, 1)
    deltas: list[Tensor] | None = None
    for i in range(settings.refinements if chosen is None else chosen + 1):
        counts = chosen is None or i == chosen
        with torch.set_grad_enabled(counts):
            deltas = hypernetwork.add(deltas, state.hyper(content.image, y_hat, codes, content.region))
            y = generator(content.latent, deltas)
            if counts:
                yield y
        y_hat = y.detach().clamp(-1, 1)


def _reconstruct(state: State, generator: Generator, passes: Passes, own: Batch, settings: Train,
                 rng: np.random.Generator, share: int) -> dict[str, float]:
    terms: dict[str, Tensor] = {}
    for y in refine(state, generator, own, own.codes, settings, rng):
        loss, terms = passes.reconstruction(y, own)
        (loss / share).backward()
    return {name: float(t.detach()) for name, t in terms.items()}


def _stylise(state: State, generator: Generator, passes: Passes, content: Batch, style: Batch, settings: Train,
             rng: np.random.Generator, share: int) -> dict[str, float]:
    critics = [*state.image_critic.parameters(), *state.patch_critic.parameters()]
    due = settings.critics_every if settings.lambda2 and state.step % settings.critics_every == 0 else 0
    found: dict[str, Tensor] = {}
    for y in refine(state, generator, content, style.codes, settings, rng):
        for p in critics:
            p.requires_grad_(False)
        loss, terms = passes.stylisation(y, content, style, rng, due)
        (loss / share).backward()
        for p in critics:
            p.requires_grad_(True)
        found |= terms
    if due:
        every = PENALTY_EVERY if state.step // due % PENALTY_EVERY == 0 else 0
        loss, terms = passes.stylisation.critic(y, content, style, rng, every)
        (loss / share).backward()
        found |= terms
    return {name: float(t.detach()) for name, t in found.items()}


def _micro_batches(settings: Train) -> int:
    """How many micro-batches make a step."""
    return max(1, settings.batch // settings.micro_batch)


def _pairs(content: Samples, style: Samples, ctx: Context, step: int) -> Iterator[tuple[Batch, Batch]]:
    """Endless micro-batches of both collections, shuffled apart, from step `step` of the run on."""
    s = ctx.profile.train
    loaders = []
    for offset, samples in enumerate((content, style)):
        loader = Loader(samples, s.micro_batch, 2 * ctx.profile.seed + offset, pin=ctx.device != "cpu")
        loader.step = step * _micro_batches(s)
        loaders.append(loader)
    for ours, theirs in zip(*loaders, strict=True):
        count = min(len(ours["key"]), len(theirs["key"]))
        yield to_batch(ours, count, ctx.device), to_batch(theirs, count, ctx.device)


def to_batch(rows: Mapping[str, Any], count: int, device: str) -> Batch:
    """The first `count` rows of a loader's batch on the device; pictures are normalised there."""
    names = ("image", "latent", "region", "codes")
    image, latent, region, codes = (rows[name][:count].to(device, non_blocking=True) for name in names)
    return Batch(image.permute(0, 3, 1, 2).float().div(127.5).sub(1), latent.float(), region, codes.float())
