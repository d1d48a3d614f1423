"""One step of the hypernetwork's training: refinement iterations, losses, discriminators (section 3.3, Eqs. 2-6).

Each refinement iteration's gradients are computed before the next one begins, so only one graph is held at a time.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from models.backbones.trunks import Trunk
from models.generators.interface import Generator
from models.generators.latent_renderer import narrow_type
from models.generators.region_renderer import renderer, rows_of
from models.hypernetworks import hypernetwork
from models.hypernetworks.batch_renorm import BatchRenorm
from models.losses import region_patches
from models.losses.narrow_region_style import NarrowRegionStyleLoss
from models.losses.objectives import Batch, LossWeights, Reconstruction, Stylization
from models.losses.region_style import RegionStyleLoss
from models.metrics.identity import Identity
from models.metrics.lpips import LPIPS
from pipeline import weights
from pipeline.context import Context
from pipeline.profile import Train
from pipeline.training.distributed import ALONE, ProcessGroup
from stages.loaders import identity as identities
from stages.train import precision
from stages.train.data import Pair, micro_batches
from stages.train.state import State, trained_from

PENALTY_EVERY = 16  # every 16th of the discriminators' steps has the R1 penalty
TERMS = (
    "l2",
    "lpips",
    "identity",
    "adversarial",
    "patch",
    "style",
    "content",
    "discriminator",
    "patch_discriminator",
    "r1",
    "patch_r1",
)


class Step:
    """Takes optimiser steps on a `State`. Every random number is a function of (seed, step, micro-batch)."""

    def __init__(
        self,
        ctx: Context,
        state: State,
        generator: Generator,
        process_group: ProcessGroup = ALONE,
        *,
        trained: bool = True,
    ) -> None:
        """With `trained` False the losses' networks are untrained: for counting sizes."""
        s = self.settings = ctx.profile.train
        self._precision = precision.autocast(ctx.device, "train", s.precision)
        self.state, self.generator, self.process_group = state, generator, process_group
        self.seed, self.device = ctx.profile.seed, ctx.device
        self.norms = [module for module in state.hyper.modules() if isinstance(module, BatchRenorm)]
        generator.checkpointing = state.image_discriminator.checkpointing = s.checkpointing
        factors = LossWeights(s.lambda1, s.lambda2, s.lpips, s.identity, s.style, s.content)

        def tensors(name: str) -> dict[str, Tensor] | None:
            return weights.tensors(name) if trained else None

        lpips = LPIPS("alex", tensors("lpips-alex")).to(ctx.device)
        identity = Identity().to(ctx.device) if s.identity and not trained else identities.identity(ctx)
        self.reconstruction = Reconstruction(lpips, factors, identity)
        # One image at a time on a CPU: renderer and style loss are those of refinement, up to twice as fast.
        single = s.micro_batch == 1 and ctx.device == "cpu"
        narrow = narrow_type(ctx.device) if s.precision == "bfloat16" else torch.float32
        self.rows = rows_of(generator, narrow) if single and state.hyper.region_deltas else None
        term = None
        if s.style or s.content:
            vgg = Trunk("vgg16", tensors("lpips-vgg"))
            term = (NarrowRegionStyleLoss(vgg, narrow) if single else RegionStyleLoss(vgg)).to(ctx.device)
        self.stylization = Stylization(
            state.image_discriminator, state.patch_discriminator, term, factors, s.patches, s.patch, s.mask_loss
        )

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, float]:
        """Train on this process's share of a step. Returns the terms, averaged over the whole batch.

        A step whose losses or gradients are not finite changes nothing; its terms then hold a NaN.
        """
        state, share = self.state, micro_batches(self.settings)
        for norm in self.norms:
            norm.seen()  # of a step that was only measured
        for optimiser in (state.optimiser, state.discriminator_optimiser):
            optimiser.zero_grad(set_to_none=True)
        sums = dict.fromkeys(TERMS, 0.0)
        counts = dict.fromkeys(TERMS, 0.0)
        for pair in pairs:
            rng = np.random.default_rng([self.seed, state.step, pair.number])
            for name, value in self._passes(pair, rng, share).items():
                sums[name] += value
                counts[name] += 1
        totals = self.process_group.sum([*sums.values(), *counts.values()])
        terms = {
            name: total / count
            for name, total, count in zip(TERMS, totals, totals[len(TERMS) :], strict=False)
            if count
        }
        trained = self._gather(terms)
        norms = [float(nn.utils.clip_grad_norm_(parameters, limit)) for _, parameters, limit in trained]
        if all(map(math.isfinite, (*terms.values(), *norms))):
            for optimiser, _, _ in trained:
                optimiser.step()
            self._normalise()
            with torch.no_grad():
                averaged, current = (
                    [t for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()]
                    for net in (state.ema, state.hyper)
                )
                torch._foreach_lerp_(averaged, current, 1 - state.averaged(self.settings.ema))
        elif all(map(math.isfinite, terms.values())):
            terms["gradient"] = math.nan
        return terms

    def _normalise(self) -> None:
        """Move the statistics of the normalisation towards what all processes have learnt from in this step."""
        found = [(norm, seen) for norm in self.norms if (seen := norm.seen()) is not None]
        self.process_group.all_reduce_([seen for _, seen in found])
        for norm, seen in found:
            norm.follow(seen / self.process_group.world_size)

    def _gather(self, terms: Iterable[str]) -> list[tuple[torch.optim.Optimizer, list[nn.Parameter], float]]:
        """Sum the gradients of all processes. Returns what this step trains, and the limits of its gradients' norms."""
        state = self.state
        networks = (
            (state.optimiser, state.hyper, {"l2", "adversarial", "style", "content"}, 1.0),
            (state.discriminator_optimiser, state.image_discriminator, {"discriminator"}, math.inf),
            (state.discriminator_optimiser, state.patch_discriminator, {"patch_discriminator"}, math.inf),
        )
        groups: dict[torch.optim.Optimizer, tuple[list[nn.Parameter], float]] = {}
        for optimiser, network, by, limit in networks:
            if not by.intersection(terms):
                continue
            parameters = [p for p in network.parameters() if p.requires_grad]
            if self.process_group.world_size > 1:  # a process may have no pair with, say, hair in both images
                for p in parameters:
                    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            parameters = [p for p in parameters if p.grad is not None]
            self.process_group.all_reduce_([p.grad for p in parameters if p.grad is not None])
            groups[optimiser] = (groups.get(optimiser, ([], 0.0))[0] + parameters, limit)
        return [(optimiser, parameters, limit) for optimiser, (parameters, limit) in groups.items()]

    def _passes(self, pair: Pair, rng: np.random.Generator, share: int) -> dict[str, float]:
        """Add the gradients of one micro-batch, divided by `share`, the number of them in a step. Returns its terms."""
        if self.state.phase == "reconstruct":
            styles = rng.random() < 0.5 and self.settings.reconstruct_styles
            batch = pair.style if styles else pair.content
            return self._reconstruct(batch, self.invert(batch), rng, share)
        inversion = self.invert(pair.content)
        terms = self._stylize(pair.content, pair.style, inversion, rng, share)
        if self.state.phase_step < self.settings.discriminators_first:
            return terms
        if self.state.step % self.settings.reconstruction_every == 0:
            terms |= self._reconstruct(pair.content, inversion, rng, share)
        return terms

    @torch.no_grad()
    def invert(self, batch: Batch) -> Tensor:
        """The renderings of a batch's latents without deltas, in [-1, 1]."""
        if self.rows is not None:
            return self.rows(batch.latent).clamp(-1, 1)
        with self._precision():
            return _wide(self.generator(batch.latent)).clamp(-1, 1)

    def refine(
        self, content: Batch, inversion: Tensor, codes: Tensor, rng: np.random.Generator, *, learn: bool = True
    ) -> Iterator[Tensor]:
        """Yield the renderings that have a loss. Deltas add up over the refinement iterations, detached in between.

        Without `learn` they have no gradients.
        """
        s, hyper = self.settings, self.state.hyper
        chosen = int(rng.integers(s.refinement_iterations)) if s.losses_at == "one" else None
        y_hat, deltas = inversion, None
        region_weights = hyper.region_weights(content.region)
        start = trained_from(self.state, s)
        for i in range(s.refinement_iterations if chosen is None else chosen + 1):
            counts = chosen is None or i == chosen
            with torch.set_grad_enabled(counts and learn):
                with self._precision():
                    deltas = hypernetwork.add(deltas, hyper(content.image, y_hat, codes, content.region))
                rows = self.rows if start else None
                draw = renderer(self.generator, rows, content.latent, region_weights, deltas, start)
                with nullcontext() if rows else self._precision():
                    y = _wide(draw(deltas))
            deltas = [d.detach() for d in deltas]
            if counts:
                yield y
            y_hat = y.detach().clamp(-1, 1)

    def _reconstruct(self, batch: Batch, inversion: Tensor, rng: np.random.Generator, share: int) -> dict[str, float]:
        terms: dict[str, Tensor] = {}
        for y in self.refine(batch, inversion, batch.codes, rng):
            loss, terms = self.reconstruction(y, batch)
            (loss / share).backward()
        return _numbers(terms)

    def _stylize(
        self, content: Batch, style: Batch, inversion: Tensor, rng: np.random.Generator, share: int
    ) -> dict[str, float]:
        s, step, results = self.settings, self.state.step, dict[str, Tensor]()
        alone = self.state.phase_step < s.discriminators_first
        due = s.discriminators_every if s.lambda2 and step % s.discriminators_every == 0 else 0
        discriminators = (self.state.image_discriminator, self.state.patch_discriminator)
        for y in self.refine(content, inversion, style.codes, rng, learn=not alone):
            if alone:
                continue
            for discriminator in discriminators:
                discriminator.requires_grad_(False)
            loss, terms = self.stylization(
                y, content, style, self.stylization.sample_patch_groups(content, style, rng), due
            )
            if loss.requires_grad:  # else no term has a weight in this step
                (loss / share).backward()
            for discriminator in discriminators:
                discriminator.requires_grad_(True)
            results |= terms
        if due:
            groups = self.stylization.sample_patch_groups(content, style, rng)
            loss, terms = self.stylization.discriminator(y, style, groups)
            (loss / share).backward()
            results |= terms
            if step // due % PENALTY_EVERY == 0:
                results |= self._penalise(style, groups, share)
        return _numbers(results)

    def _penalise(self, style: Batch, groups: region_patches.PatchGroups, share: int) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for loss, terms in self.stylization.penalties(style, groups, PENALTY_EVERY):
            (loss / share).backward()
            for name, term in terms.items():
                sums[name] = sums[name] + term.detach() if name in sums else term.detach()
        return sums


def _wide(x: Tensor) -> Tensor:
    """Images in float32 instead of autocast's type: the losses have full precision."""
    return x.float() if x.dtype is torch.bfloat16 else x


def _numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    """The terms as numbers, fetched from the device at once."""
    return (
        dict(zip(terms, torch.stack([t.detach() for t in terms.values()]).cpu().tolist(), strict=True)) if terms else {}
    )


def schedule(settings: Train) -> int:
    """How many steps both phases have."""
    return settings.reconstruction_steps + settings.stylization_steps
