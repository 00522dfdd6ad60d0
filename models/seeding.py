"""Named random streams derived from one seed: the only file that touches global generators."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
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
    """Code inside that draws from the global generators of torch, numpy or `random` (layer inits, dropout) draws from the named stream.

    Their states are put back afterwards; CUDA devices are seeded as well, where there are any. The global generators belong to the
    process: not for two threads at once.
    """
    drawn = derive(seed, *names)
    others = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(drawn)
        random.seed(drawn)
        np.random.seed(drawn % 2**32)
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])
