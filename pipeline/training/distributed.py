"""Data-parallel training under `torchrun`: the rank of this process, and sums over all processes.

Gradients are summed once per step, not by the hooks of DistributedDataParallel: here a step has several backward
passes, and each phase trains other parameters. Without torchrun there is one process, and nothing is summed.
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

BUCKET = 1 << 26  # bytes per all_reduce; a copy of this size is the only extra memory


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together: `rank` is the number of this one, `world_size` how many there are."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def all_reduce_(self, tensors: "Iterable[Tensor]") -> None:
        """Replace each tensor by its sum over the processes, in place.

        All processes must pass tensors of the same shapes in the same order.
        """
        if self.world_size == 1:
            return
        bucket: list[Tensor] = []
        size = 0
        for tensor in tensors:
            bucket.append(tensor)
            size += tensor.nbytes
            if size >= BUCKET:
                _sum(bucket)
                bucket, size = [], 0
        if bucket:
            _sum(bucket)

    def sum(self, values: Iterable[float]) -> list[float]:
        """The sum of each number over the processes, in float64."""
        import torch

        numbers = torch.tensor([*values], dtype=torch.float64)
        if self.world_size > 1:
            numbers = numbers.to(_device())
            torch.distributed.all_reduce(numbers)
        return numbers.tolist()

    def any(self, local: bool) -> bool:
        """Whether `local` is true in any process."""
        return self.sum([float(local)])[0] > 0

    def broadcast_(self, module: "nn.Module") -> None:
        """Copy the parameters and buffers of the first process to all others."""
        import torch

        if self.world_size > 1:
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(tensor, 0)


ALONE = ProcessGroup()


@contextmanager
def init_distributed(ctx: Context) -> Iterator[tuple[ProcessGroup, Context]]:
    """Connect the processes that torchrun started; a context on a GPU gets this process's own GPU as its device.

    Raises: UserError when torchrun's variables are set, but the processes cannot connect.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ALONE, ctx
        return
    import torch

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if ctx.device.startswith("cuda"):
        own, count = f"cuda:{local_rank}", torch.cuda.device_count()
        if ctx.device not in ("cuda", own):
            raise UserError(f"train: {world_size} processes cannot share {ctx.device}; use --device cuda", 2)
        if local_rank >= count:
            raise UserError(f"train: {world_size} processes for {count} GPU(s); start one for each", 2)
        ctx = replace(ctx, device=own)
        torch.cuda.set_device(local_rank)
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
