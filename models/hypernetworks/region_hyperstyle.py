"""The hypernetwork in HyperStyle's form: its published trunk and heads, with region style codes fused between them.

The fusion layer starts as the identity on the content half and zero on the style half. So a network started from
HyperStyle's weights gives exactly HyperStyle's deltas until it is trained (paper section 3.3).
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from models import state_dicts
from models.generators.interface import LayerEntry
from models.hypernetworks.hypernetwork import HyperNetwork, MaskEncoder
from models.hypernetworks.hyperstyle import HyperStyle, OwnHead, shares, without_aliases

FEATURES, STYLE = 512, 256


class RegionHyperStyle(HyperNetwork):
    """HyperStyle with a head for every row of a generator's table and E_mask beside its trunk.

    Untrained heads give zero deltas. Batch norm always uses its running statistics and never changes them, as
    batches are small and a frozen layer must not change. The matrices that early heads share belong to no head:
    stylisation does not train them.
    """

    def __init__(
        self,
        table: Sequence[LayerEntry],
        *,
        condition_on_regions: bool = True,
        region_deltas: bool = False,
        checkpointing: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.condition_on_regions = condition_on_regions
        self.region_deltas = region_deltas and condition_on_regions
        self.checkpointing, self.table = checkpointing, list(table)
        self.net = HyperStyle(table, range(len(table)))
        self.mask = MaskEncoder()
        self.fusion = nn.Conv2d(FEATURES + STYLE, FEATURES, 1)
        for p in self.fusion.parameters():
            nn.init.zeros_(p)
        self._start()
        self.train()

    def _start(self) -> None:
        with torch.no_grad():
            self.fusion.weight[:, :FEATURES, 0, 0] = torch.eye(FEATURES)
            for head in self.net.refinement_blocks.values():
                if isinstance(head, OwnHead):
                    _silence(head)
            if self.net.shared_weight_hypernet is not None:  # only w1 is zero: with both at zero neither would learn
                self.net.shared_weight_hypernet.w2.normal_(0, 0.01)

    @property
    def heads(self) -> list[nn.Module]:  # type: ignore[override]
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
        if "shared_weight_hypernet.w1" not in state:
            missing |= {n for n in shapes if n.startswith("shared_weight_hypernet.")}
        what = f"a HyperStyle hypernetwork for this generator's {len(self.net.table)} layers"
        state_dicts.check({n: s for n, s in shapes.items() if n not in missing}, state, what)
        self.net.load_state_dict({n: t.float() for n, t in state.items()}, strict=False)

    def features(self, both: Tensor) -> Tensor:
        """Features [N, 512, 16, 16] of HyperStyle's trunk."""
        return self._run(self.net.features, both)

    def deltas(self, features: Tensor, codes: Tensor) -> list[Tensor]:
        """Deltas [M, 512, 512, 3, 3] of shared heads, [M, out, in, 1, 1] of others; the heads do not read the codes."""
        fused = self.fusion(features)
        return [self._run(partial(self.net.delta, i), fused) for i in range(len(self.table))]


def _silence(head: OwnHead) -> None:
    """Make a head give zeros until it is trained."""
    for p in head.output[-1].parameters():
        nn.init.zeros_(p)
