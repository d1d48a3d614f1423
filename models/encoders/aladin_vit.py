"""ALADIN on a vision transformer (the paper's authors' release): an image's style as 256 numbers.

ViT-B/16 at 224 px with pre-norm blocks; the class token after the last norm passes through the projection head. The
modules carry the published names (`transformer.*`, `proj_head.*`), so that loading is strict.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.state_dicts import build, check, fill, numbers

PREFIX = "enc_style."
HEAD_SIZE = 64  # channels per attention head
EPS = 1e-6


class Embeddings(nn.Module):
    """Patches of 16 px and a class token, with learnt positions: [N, 3, 224, 224] -> [N, 197, 768]."""

    def __init__(self, width: int, patch: int, tokens: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.zeros(1, tokens, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embeddings = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, 197, 768] of images x [N, 3, 224, 224]."""
        x = self.patch_embeddings(x).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.position_embeddings


class Attention(nn.Module):
    """Self-attention with separate query, key, value and output maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_SIZE
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over tokens x [N, T, width]."""
        q, k, v = (net(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for net in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear maps with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens x [N, T, width]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.ffn, self.attn = FeedForward(width, hidden), Attention(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens x [N, T, width]."""
        x = x + self.attn(self.attention_norm(x))
        return x + self.ffn(self.ffn_norm(x))


class Encoder(nn.Module):
    """The blocks, and a norm after the last one."""

    def __init__(self, depth: int, width: int, hidden: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(width, hidden) for _ in range(depth))
        self.encoder_norm = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens x [N, T, width]."""
        for block in self.layer:
            x = block(x)
        return self.encoder_norm(x)


class AladinViT(nn.Module):
    """Images to unit-length style codes, frozen; `load` takes the published tensors and infers every size from them."""

    size: int

    def __init__(
        self,
        depth: int = 12,
        width: int = 768,
        hidden: int = 3072,
        patch: int = 16,
        tokens: int = 197,
        projection: int = 512,
        code: int = 256,
    ) -> None:
        super().__init__()
        self.size = patch * round((tokens - 1) ** 0.5)
        embeddings, encoder = Embeddings(width, patch, tokens), Encoder(depth, width, hidden)
        self.transformer = nn.ModuleDict({"embeddings": embeddings, "encoder": encoder})
        self.proj_head = nn.ModuleDict({"fc1": nn.Linear(width, projection), "fc2": nn.Linear(projection, code)})

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "AladinViT":
        """Build the network from a published state dict, keys `enc_style.…`.

        Raises: ValueError naming tensors that are missing, unexpected or of another shape.
        """
        state = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
        foreign = [name for name in tensors if not name.startswith(PREFIX)]
        blocks = "transformer.encoder.layer."
        try:
            patches = state["transformer.embeddings.patch_embeddings.weight"]
            positions = state["transformer.embeddings.position_embeddings"]
            hidden = state[f"{blocks}0.ffn.fc1.weight"]
            fc1, fc2 = state["proj_head.fc1.weight"], state["proj_head.fc2.weight"]
            depth = len(numbers(state, blocks))
            net = build(
                cls,
                depth,
                patches.shape[0],
                hidden.shape[0],
                patches.shape[2],
                positions.shape[1],
                fc1.shape[0],
                fc2.shape[0],
            )
        except (KeyError, IndexError) as error:
            raise ValueError(f"not an ALADIN ViT: {PREFIX}{error.args[0]} is missing or misshaped") from error
        if foreign:
            check({}, {name: tensors[name] for name in foreign}, "an ALADIN ViT")
        return fill(net, state, "an ALADIN ViT")

    def code(self, images: Tensor) -> Tensor:
        """The class token [N, 768] of images [N, 3, 224, 224] in [-1, 1]."""
        return self.transformer["encoder"](self.transformer["embeddings"](images))[:, 0]

    def head(self, code: Tensor) -> Tensor:
        """The embedding [N, 256], of any length, of a class token."""
        return self.proj_head["fc2"](F.leaky_relu(self.proj_head["fc1"](F.leaky_relu(code))))

    def forward(self, images: Tensor, size: int | None = None) -> Tensor:
        """Codes [N, 256] of length 1 of images [N, 3, H, W] in [-1, 1]; positions are learnt, so `size` is ignored."""
        x = images.clamp(-1, 1)
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return F.normalize(self.head(self.code(x)))
