"""Named random streams derived from one seed: the only file that touches torch's global generator."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for the stream called `names` under `seed`; the same names give the same stream everywhere."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator of its own for the stream called `names`, e.g. `generator(spec.seed, "order", epoch)`."""
    return torch.Generator().manual_seed(derive(seed, *names))


@contextmanager
def scoped(seed: int, *names: object) -> Iterator[None]:
    """Code inside that draws from torch's global generators (layer inits, dropout) draws from the named stream.

    The state of the CPU generator is put back afterwards; CUDA devices are seeded as well, where there are any. The global
    generators belong to the process: not for two threads at once.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, *names))
        yield
