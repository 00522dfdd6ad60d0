"""One of two processes that train a held network together (DistributedDataParallel over gloo); prints what the test reads."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autosparse.library.holding import hold
from autosparse.library.mask import Mask
from autosparse.models import seeding


def main() -> None:
    """`two_ranks.py MEETING RANK`."""
    meeting, rank = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for first in (True, False):
        train(rank, hold_first=first)
    dist.destroy_process_group()


def train(rank: int, *, hold_first: bool) -> None:
    """1,000 steps of AdamW with clipping and accumulation, held before or after DDP wraps the network."""
    with seeding.scoped(rank, "test"):  # DDP makes them equal
        network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    stream = seeding.generator(0, "mask")
    mask = Mask.of({name: torch.rand(param.shape, generator=stream) < 0.2 for name, param in network.named_parameters() if param.dim() > 1})
    held = hold(network, mask) if hold_first else None
    wrapped = DistributedDataParallel(network, gradient_as_bucket_view=hold_first)
    held = held or hold(wrapped, mask)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=0.01, weight_decay=0.1)
    stream = seeding.generator(rank, "batches")
    for _ in range(1000):
        with wrapped.no_sync():
            wrapped(torch.randn(4, 8, generator=stream)).square().mean().backward()
        wrapped(torch.randn(4, 8, generator=stream)).sum().backward()
        assert all(not param.grad[~mask[name]].any() for name, param in network.named_parameters() if name in mask)  # type: ignore[index]
        torch.nn.utils.clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    flat = torch.cat([param.detach().flatten() for param in network.parameters()])
    both = [torch.empty_like(flat) for _ in range(2)]
    dist.all_gather(both, flat)
    print(f"violations {held.violations()} equal {torch.equal(*both)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
