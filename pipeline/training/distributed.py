"""Data-parallel training under `torchrun`: who this process is, and what the processes add up.

Gradients are summed once a step instead of by DistributedDataParallel's hooks: a step here has many backward passes
and trains other parameters in each phase. Run without torchrun there is one process and nothing to add.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.context import Context
from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

BUCKET = 1 << 26  # bytes summed at once; a copy of that size is all the memory it takes


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together; `rank` is this one's number of `world_size`."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def all_reduce_(self, tensors: "Iterable[Tensor]") -> None:
        """Replace each tensor by its sum over the processes, in place; all must give the same shapes in one order."""
        if self.world_size == 1:
            return
        bucket: list[Tensor] = []
        held = 0
        for tensor in tensors:
            bucket.append(tensor)
            held += tensor.nbytes
            if held >= BUCKET:
                _sum(bucket)
                bucket, held = [], 0
        if bucket:
            _sum(bucket)

    def sum(self, values: Iterable[float]) -> list[float]:
        """Each number's sum over the processes, in float64."""
        import torch

        numbers = torch.tensor([*values], dtype=torch.float64)
        if self.world_size > 1:
            numbers = numbers.to(_device())
            torch.distributed.all_reduce(numbers)
        return numbers.tolist()

    def any(self, mine: bool) -> bool:
        """Whether it is so in any process."""
        return self.sum([float(mine)])[0] > 0

    def broadcast_(self, module: "nn.Module") -> None:
        """Give all processes the first one's parameters and buffers."""
        import torch

        if self.world_size > 1:
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(tensor, 0)


ALONE = ProcessGroup()


@contextmanager
def init_distributed(ctx: Context) -> Iterator[tuple[ProcessGroup, Context]]:
    """Join the processes that torchrun started; the context's device becomes this process's own GPU, if it is one.

    Raises: UserError when torchrun's variables are there but the processes cannot meet.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ALONE, ctx
        return
    import torch

    place = int(os.environ.get("LOCAL_RANK", "0"))
    if ctx.device == "cuda":
        ctx = replace(ctx, device=f"cuda:{place}")
        torch.cuda.set_device(place)
    try:
        torch.distributed.init_process_group("nccl" if ctx.device.startswith("cuda") else "gloo")
    except (RuntimeError, ValueError) as e:
        raise UserError(
            f"train: {world_size} processes could not connect ({str(e).splitlines()[0]}); start them with torchrun"
        ) from e
    try:
        yield ProcessGroup(torch.distributed.get_rank(), world_size), ctx
    finally:
        torch.distributed.destroy_process_group()


def _device() -> str:
    import torch

    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"


def _sum(tensors: "list[Tensor]") -> None:
    import torch

    flat = torch.cat([t.reshape(-1) for t in tensors])
    torch.distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
