"""ArcFace's IR-SE50 as a loss: whether two portraits show the same person (Deng et al. 2019), as e4e uses it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import state_dicts
from models.backbones import irse
from models.backbones.irse import Backbone

CROP = (slice(35, 223), slice(32, 220))  # rows and columns of an aligned 256 px portrait that the file was trained on
SIDE = 112
EMBEDDING_SIZE = 512
COUNTER = "num_batches_tracked"  # files of older PyTorch versions lack these


class Identity(Backbone):
    """Embeds faces, frozen; gradients still reach the first image. The state dict is the published file's."""

    def __init__(self) -> None:
        super().__init__()
        width = irse.UNITS[-1][0]
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(width * 7 * 7, EMBEDDING_SIZE),
            nn.BatchNorm1d(EMBEDDING_SIZE),
        )
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "Identity":
        """Build from the file's tensors. Raises: ValueError, in one line, when they are not those of the network."""
        net = state_dicts.build(cls)
        counters = {name: torch.zeros((), dtype=torch.long) for name in net.state_dict() if name.endswith(COUNTER)}
        return state_dicts.fill(net, counters | dict(tensors), "an ArcFace IR-SE50")

    def embed(self, x: Tensor) -> Tensor:
        """Unit codes [N, 512] of the faces in aligned portraits [N, 3, H, W] in [-1, 1], resized to 256 px."""
        if x.shape[-2:] != (256, 256):
            x = F.interpolate(x, (256, 256), mode="bilinear", antialias=True)
        face = F.adaptive_avg_pool2d(x[:, :, CROP[0], CROP[1]], SIDE)
        return F.normalize(self.output_layer(self.body(self.input_layer(face))))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """1 - cosine, [N] from 0 to 2, of the faces in y and x, [N, 3, H, W] in [-1, 1]; x gets no gradients."""
        with torch.no_grad():
            target = self.embed(x)
        return 1 - (self.embed(y) * target).sum(1)
