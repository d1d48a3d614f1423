"""The training of the Swapping Autoencoder: its discriminators learn in even steps, itself in odd ones."""

import numpy as np
import torch
from torch import Tensor, nn

from models.baselines import sae as network
from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.losses import swapping
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training.distributed import ALONE
from pipeline.training.state import advance
from stages.baselines.training import Told, numbers

HALVINGS, STRUCTURE, TEXTURE = 4, 8, 2048
RATE, BETA = 2e-3, 0.99
PATCHES, PATCH = 8, 32  # patches per image, and their side in pixels
LAZY = swapping.R1_EVERY / (swapping.R1_EVERY + 1)


class SAE:
    """Encoder and generator, image and patch discriminator. Each content is paired with a style."""

    BATCH, MULTIPLE, LEAST = 8, 2**HALVINGS, 128

    def __init__(self, ctx: Context) -> None:
        capacity, crop = ctx.profile.baselines.sae_capacity, ctx.profile.baselines.crop
        if crop & (crop - 1):
            raise UserError(f"baselines.crop is {crop}; sae's image discriminator takes a power of two", 2)
        self.model = new_network(capacity).to(ctx.device)
        self.judge = ImageDiscriminator(crop, base=int(32768 * capacity), top=int(512 * capacity)).to(ctx.device)
        self.patch_judge = PatchDiscriminator(size=PATCH, width=capacity).to(ctx.device)
        self.nets: dict[str, nn.Module] = {
            "model": self.model, "judge": self.judge, "patch_judge": self.patch_judge,
        }  # fmt: skip
        judges = [*self.judge.parameters(), *self.patch_judge.parameters()]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.Adam(self.model.parameters(), lr=RATE, betas=(0.0, BETA)),
            "judge_adam": torch.optim.Adam(judges, lr=RATE * LAZY, betas=(0.0, BETA**LAZY)),
        }
        self.seed = ctx.profile.seed

    def step(self, content: Tensor, style: Tensor, number: int) -> Told:
        """See `Training`."""
        rng = np.random.default_rng([self.seed, number, 1])
        real = torch.stack([content, style], 1).flatten(0, 1)
        mirrored = torch.from_numpy(rng.random(len(real)) < 0.5).to(real.device)
        real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        learn = self._generator if number % 2 else self._discriminators
        return learn(real, number // 2, rng)

    def _images(self, real: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The first half of the images reconstructed, and all of them in the structure of their partner."""
        structure, texture = self.model.encoder(real)
        net, half = self.model.generator, len(real) // 2

        def noise() -> list[Tensor]:
            return [*network.fixed_noise(tuple(structure.shape[2:]), net.blocks(), int(rng.integers(1 << 31)))]

        rec = net(structure[:half], texture[:half], noise())
        return rec, net(swapping.swapped(structure), texture, noise())

    def _crops(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        draws = torch.from_numpy(rng.random((len(images) * PATCHES, 5), dtype=np.float32)).to(images.device)
        return swapping.crops(images, draws, PATCH)

    def _discriminators(self, real: Tensor, turn: int, rng: np.random.Generator) -> Told:
        self._let_learn(judges=True)
        with torch.no_grad():
            rec, mix = self._images(real, rng)
        reference, target = self._crops(real, rng), self._crops(real, rng)
        patches = (reference, target, self._crops(mix, rng))
        terms = swapping.discriminator_terms(self.judge, self.patch_judge, real, rec, mix, patches)
        swapping.summed(terms).backward()
        bad, told = advance(self.optimisers["judge_adam"], ALONE), numbers(terms)
        if turn % swapping.R1_EVERY == swapping.R1_EVERY - 1:
            penalty = swapping.r1_term(self.judge, self.patch_judge, real, (reference, target)).mean()
            (swapping.R1_EVERY * penalty).backward()
            bad = advance(self.optimisers["judge_adam"], ALONE) or bad
            told["D_R1"] = float(penalty.detach())
        return told, bad

    def _generator(self, real: Tensor, turn: int, rng: np.random.Generator) -> Told:
        self._let_learn(judges=False)
        rec, mix = self._images(real, rng)
        patches = (self._crops(real, rng), self._crops(mix, rng))
        terms = swapping.generator_terms(self.judge, self.patch_judge, real, rec, mix, patches)
        swapping.summed(terms).backward()
        return numbers(terms), advance(self.optimisers["adam"], ALONE)

    def _let_learn(self, judges: bool) -> None:
        self.model.requires_grad_(not judges)
        for net in (self.judge, self.patch_judge):
            net.requires_grad_(judges)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """See `Training`."""
        parts = {"E": self.model.encoder, "G": self.model.generator}
        return {"sae": {f"{p}.{name}": t for p, net in parts.items() for name, t in net.state_dict().items()}}


def new_network(capacity: float) -> network.SAE:
    """A fresh network of the published layout at 256 px, with `capacity` times its channels; capacity 1 is its own."""
    texture = round(TEXTURE * capacity)
    down = [min(texture, round(capacity * 2 ** (5 + i))) for i in range(HALVINGS + network.GLOBAL + 1)]
    up = [int(min(512, 128 * 2 ** (HALVINGS - i)) * capacity) for i in range(HALVINGS + 1)]
    head = [round(up[0] / 2), up[0]]
    encoder = network.Encoder(down, STRUCTURE, texture)
    return network.SAE(encoder, network.Generator(STRUCTURE, texture, head, up[1:]))
