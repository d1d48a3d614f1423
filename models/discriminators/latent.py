"""The latent discriminator of e4e's training."""

from torch import Tensor, nn

from models.stylegan_ops import LATENT, EqualLinear


class LatentDiscriminator(nn.Module):
    """Tells the mapping network's latents from an encoder's: four layers and a logit, [N, 512] -> [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        hidden = (EqualLinear(LATENT, LATENT, active=True) for _ in range(4))
        self.layers = nn.Sequential(*hidden, EqualLinear(LATENT, 1))

    def forward(self, w: Tensor) -> Tensor:
        """Logits of latents w [N, 512]."""
        return self.layers(w)
