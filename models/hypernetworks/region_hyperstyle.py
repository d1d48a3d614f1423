"""The hypernetwork in HyperStyle's form: its published trunk and heads, with region style codes joined in between.

The trunk's 512 channels are projected to 256 and concatenated with E_mask's 256, as in the paper. HyperStyle's own
heads read 512 content channels: for its files a fusion layer keeps those, the identity on the content half and zero on
the style half. Each head also reads the codes directly (A(s) in Eq. 2), through a layer that starts at zero and is
trained with the head. So a network started from HyperStyle's weights gives exactly HyperStyle's deltas until it is
trained.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models import state_dicts
from models.generators.interface import LayerEntry
from models.hypernetworks.hypernetwork import CodeSpace, HyperNetwork, MaskEncoder
from models.hypernetworks.hyperstyle import HyperStyle, OwnHead, Trunk, shares, without_aliases
from models.regions import CODE_SIZE, REGION_COUNT

FEATURES, STYLE = 512, 256


class RegionHyperStyle(HyperNetwork):
    """HyperStyle with a head for every row of a generator's table and E_mask beside its trunk.

    `project` projects the trunk's features to 256 channels; else they are fused with E_mask's, as HyperStyle's files
    need. Untrained heads give zero deltas. The trunk is normalised by running statistics, as batches are small:
    `measure` sets them, and while the trunk learns they follow (`BatchRenorm`). The matrices that early heads share
    belong to no head: stylisation does not train them.
    """

    def __init__(
        self,
        table: Sequence[LayerEntry],
        *,
        condition_on_regions: bool = True,
        region_deltas: bool = False,
        checkpointing: bool = False,
        project: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.condition_on_regions = condition_on_regions
        self.region_deltas = region_deltas
        self.checkpointing, self.table = checkpointing, list(table)
        self.net = HyperStyle(table, range(len(table)))
        self.space, self.mask = CodeSpace(), MaskEncoder()
        self.project = nn.Conv2d(FEATURES, FEATURES - STYLE, 1) if project else None
        self.fusion = None if project else nn.Conv2d(FEATURES + STYLE, FEATURES, 1)
        for head in self.heads:
            head.style = nn.Linear((REGION_COUNT + 1) * CODE_SIZE, FEATURES)
        self._start()
        self.train()

    def _start(self) -> None:
        with torch.no_grad():
            if self.fusion is not None:
                self.fusion.weight.zero_()
                self.fusion.weight[:, :FEATURES, 0, 0] = torch.eye(FEATURES)
                self.fusion.bias.zero_()  # type: ignore[union-attr]
            for p in (p for head in self.heads for p in head.style.parameters()):
                p.zero_()
            for head in self.net.refinement_blocks.values():
                if isinstance(head, OwnHead):
                    _silence(head)
            if self.net.shared_weight_hypernet is not None:  # only w1 is zero: with both at zero neither would learn
                self.net.shared_weight_hypernet.w2.normal_(0, 0.01)

    @property
    def heads(self) -> list[Any]:  # type: ignore[override]
        """The heads in the order of the table."""
        return list(self.net.refinement_blocks.values())

    def train(self, mode: bool = True) -> "RegionHyperStyle":
        """Switch to training; batch norm stays in evaluation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def initialise(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from HyperStyle's published tensors; heads of layers that it does not tune keep giving zeros.

        Raises: ValueError, in one line, when the tensors belong to another generator's table or are something else.
        """
        state = without_aliases(tensors)
        tuned = state_dicts.numbers(state, "refinement_blocks.")
        if not tuned:
            raise ValueError(f"not a HyperStyle hypernetwork: no refinement_blocks.* among {len(state)} tensors")
        if self.fusion is None:
            raise ValueError("HyperStyle's heads read 512 content channels; set train.project_content = false")
        silent = [i for i, entry in enumerate(self.net.table) if shares(entry) and i not in tuned]
        if silent and "shared_weight_hypernet.w1" in state:
            raise ValueError(
                f"a HyperStyle hypernetwork that tunes only some of the layers that share their matrices; "
                f"layers {', '.join(map(str, silent))} could not start at zero deltas"
            )
        shapes = state_dicts.shapes(self.net)
        if "shared_weight_hypernet.w1" not in shapes:
            state = {n: t for n, t in state.items() if not n.startswith("shared_weight_hypernet.")}
        missing = {n for n in shapes if n.startswith("refinement_blocks.") and int(n.split(".")[1]) not in tuned}
        missing |= {n for n in shapes if ".style." in n}
        if "shared_weight_hypernet.w1" not in state:
            missing |= {n for n in shapes if n.startswith("shared_weight_hypernet.")}
        what = f"a HyperStyle hypernetwork for this generator's {len(self.net.table)} layers"
        state_dicts.check({n: s for n, s in shapes.items() if n not in missing}, state, what)
        self.net.load_state_dict({n: t.float() for n, t in state.items()}, strict=False)

    def start_trunk(self, tensors: Mapping[str, Tensor]) -> None:
        """Start the trunk from torchvision's ResNet34. Raises: ValueError when the tensors are not its."""
        self.net.load_state_dict(Trunk.load_imagenet(tensors).state_dict(), strict=False)

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Set the trunk's normalisation statistics to those of images and renderings, batches of [N, 6, 256, 256]."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for both in batches:
            self.net.features(both)
        for norm in norms:
            norm.momentum = 0.1
            norm.eval()

    def features(self, both: Tensor) -> Tensor:
        """HyperStyle's trunk on an image and its rendering: [N, 256, 16, 16] if projected, else [N, 512, 16, 16]."""
        found = self._run(self.net.features, both)
        return found if self.project is None else self.project(found)

    def deltas(self, features: Tensor, codes: Tensor) -> list[Tensor]:
        """Deltas [M, 512, 512, 3, 3] of shared heads, [M, out, in, 1, 1] of others.

        The shared matrices, of 137 million numbers, are read once for all heads, and so are their gradients written.
        """
        joined = features if self.fusion is None else self.fusion(features)
        flat = codes.flatten(1) * CODE_SIZE**0.5  # codes have unit length
        found = [self._run(partial(self._head, i), joined, flat) for i in range(len(self.table))]
        shared = [i for i, entry in enumerate(self.table) if shares(entry)]
        if shared and self.net.shared_weight_hypernet is not None:
            vectors = torch.cat([found[i] for i in shared])
            deltas = self._run(self.net.shared_weight_hypernet, vectors)
            for i, part in zip(shared, deltas.chunk(len(shared)), strict=True):
                found[i] = part
        return found

    def _head(self, index: int, joined: Tensor, codes: Tensor) -> Tensor:
        """What a head makes of the features: its deltas, or the vector that the shared matrices turn into them."""
        head = self.heads[index]
        return head(joined + head.style(codes)[:, :, None, None])


def _silence(head: OwnHead) -> None:
    """Make a head give zeros until it is trained."""
    for p in head.output[-1].parameters():
        nn.init.zeros_(p)
