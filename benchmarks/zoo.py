"""How many of torchvision's classification networks can be pruned, held, compacted and exported by the library's five lines.

    python -m benchmarks.zoo --json zoo.json --smaller-than 100e6
    python -m benchmarks.zoo --only resnet18 vgg11

Random weights, random images of the smallest size that a network takes in training mode. Pruned: by SynFlow at `--density` without
an emptied layer. Held: no violation after `--steps` of AdamW. Compacted: the outputs of the held network, in eval mode on images that
the compaction has not seen, to 1e-5 of the largest. Exported: the compacted network as ONNX, run in ONNX Runtime. A step that
fails does not end the others: what failed is a line in the last column. The file is written after every network, small ones first,
and the same command again does what is missing in it.
"""

import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

import autosparse
from autosparse.library.compaction import difference, line, size
from autosparse.models.criteria import synaptic_flow
from autosparse.models.networks.torchvision_guard import import_torchvision
from autosparse.models.seeding import generator, scoped
from autosparse.tasks.results.markdown import markdown
from benchmarks.reporting import options, save, where

zoo: Any = import_torchvision().models
CLASSES, BATCH = 10, 4
PIXELS = (32, 64, 96, 128, 224, 256, 299)
OF_ITS_SIZE = {"vit_": "image_size"}  # builders that take the size of the images
# At smaller images the last windows are mostly padding, where the position bias hardly carries anything: its layers would starve.
LEAST = {"swin_v2_": 256}
SETTINGS = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}  # of scipy, and slow
STEPS = ("pruned", "held", "compacted", "exported")


def main() -> None:
    """Go through the networks, print and write."""
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", help="names of builders")
    parser.add_argument("--smaller-than", type=float, default=float("inf"), help="parameters; larger networks are named as not run")
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--iterations", type=int, default=synaptic_flow.ITERATIONS, help="of SynFlow (default %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="of training (default %(default)s)")
    parser.add_argument("--without-export", action="store_true", help="which takes most of the time; such a row is run again without this")
    args = parser.parse_args()
    synaptic_flow.ITERATIONS = args.iterations
    rows = json.loads(args.json.read_text())["figures"] if args.json and args.json.exists() else []
    done = {row["network"] for row in rows if not row["failed"]}
    for name in sorted(args.only or builders(), key=parameters):
        if name in done:
            continue
        row = (
            measure(name, args) if parameters(name) < args.smaller_than else empty(name, f"not run: {parameters(name) / 1e6:.0f} M weights")
        )
        rows = [*(other for other in rows if other["network"] != name), row]
        print(row, flush=True)
        save("zoo", rows, args)
    print(f"{where('zoo')}\n\n{table(rows)}\n{counts(rows)}")


def builders() -> list[str]:
    """The names of all builders of classification networks."""
    return zoo.list_models(module=zoo)


def parameters(name: str) -> int:
    """How many a network has as its makers publish it, without building it."""
    return zoo.get_model_weights(name).DEFAULT.meta["num_params"]


def empty(name: str, failed: str) -> dict[str, Any]:
    """The row of a network that nothing was done with."""
    return {"network": name, "parameters": parameters(name), "pixels": None, **dict.fromkeys(STEPS), "failed": failed}


def measure(name: str, args: Namespace) -> dict[str, Any]:
    """The row of a network: seconds of each step that worked, None for one that did not, and the first lines of errors."""
    row, problems = empty(name, ""), []
    start = time.perf_counter()

    @contextmanager
    def step(key: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
            if key in row:
                row[key] = round(time.perf_counter() - begun, 1)
        except Exception as error:  # whatever it is, it is a figure here
            problems.append(f"{key}: {error if isinstance(error, AssertionError) else line(error)}")

    with step("built"):
        network, row["pixels"] = built(name)
        shape = 3, row["pixels"], row["pixels"]
        stream = generator(0, "zoo images")
        images, labels = torch.randn(BATCH, *shape, generator=stream), torch.randint(CLASSES, (BATCH,), generator=stream)
        example = images[:1]
        mask = small = None
        with step("pruned"):
            mask = autosparse.prune(network, example=example, density=args.density, warn=False)
            expect(not (bare := mask.collapsed_layers()), f"no weight is left in {len(bare)} layers, such as {bare[:1]}")
        if mask is not None:
            with step("held"):
                expect(not (wrong := held_violations(network, mask, images, labels, args.steps)), f"{wrong} violations")
            network.eval()
            with step("compacted"):
                small = autosparse.compact(network, example, mask)
                row["times smaller"] = size(network, example).parameters / size(small, example).parameters
                with torch.no_grad():
                    problem = difference([small(images)], [network(images)])
                expect(not problem, problem)
        with step("exported"), TemporaryDirectory() as folder:
            expect(not args.without_export, "not run")
            autosparse.export(small or network, example, Path(folder) / "network.onnx")
    return row | {"iterations": args.iterations, "failed": "; ".join(problems), "seconds": round(time.perf_counter() - start, 1)}


def expect(right: bool, otherwise: str) -> None:
    """Raises AssertionError, without a word of the code's own."""
    if not right:
        raise AssertionError(otherwise)


def built(name: str) -> tuple[nn.Module, int]:
    """The network with random weights and ten classes, and the side of the smallest images that it can be trained on."""
    known = next((word for start, word in OF_ITS_SIZE.items() if name.startswith(start)), None)
    make: Callable[..., nn.Module] = getattr(zoo, name)
    network: nn.Module | None = None
    least = next((side for start, side in LEAST.items() if name.startswith(start)), 0)
    for pixels in (side for side in PIXELS if side >= least):
        try:
            if network is None or known:
                with scoped(0, name):
                    network = make(num_classes=CLASSES, **SETTINGS.get(name, {}), **({known: pixels} if known else {}))
            with torch.no_grad():
                for mode in (True, False):
                    network.train(mode)(torch.zeros(BATCH, 3, pixels, pixels))
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.reset_running_stats()
            return network.train(), pixels
        except Exception as error:  # images that are too small
            if pixels == PIXELS[-1]:
                raise error
    raise AssertionError


def held_violations(network: nn.Module, mask: Any, images: torch.Tensor, labels: torch.Tensor, steps: int) -> int:
    """Entries that are not zero after some steps of AdamW with weight decay."""
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-3, weight_decay=0.05)
    with autosparse.hold(network, mask, optimizer, example=images[:1]) as held:
        for _ in range(steps):
            optimizer.zero_grad()
            outputs = network(images)
            logits = outputs if isinstance(outputs, torch.Tensor) else outputs[0]  # auxiliary heads come after
            nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
        return held.violations()


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: seconds of each step, how many times fewer parameters after compaction, what failed."""
    lines = [
        [
            row["network"],
            f"{row['parameters'] / 1e6:.1f}",
            str(row["pixels"] or ""),
            str(row.get("iterations", "")),
            *("" if row[step] is None else f"{row[step]:.1f}" for step in STEPS),
            f"{row['times smaller']:.2f}" if "times smaller" in row else "",
            row["failed"],
        ]
        for row in sorted(rows, key=lambda row: row["parameters"])
    ]
    return markdown(
        ("network", "M parameters", "pixels", "iterations", *(f"s, {step}" for step in STEPS), "times smaller", "failed"), lines
    )


def counts(rows: list[dict[str, Any]]) -> str:
    """How many networks passed each step, of how many that tried it, and which builders are missing."""
    run = [row for row in rows if row["pixels"] is not None or not row["failed"].startswith("not run")]
    parts = []
    for step in STEPS:
        tried = [row for row in run if f"{step}: not run" not in row["failed"]]
        parts.append(f"{step} {sum(row[step] is not None for row in tried)} of {len(tried)}")
    missing = sorted(set(builders()) - {row["network"] for row in run}, key=parameters)
    return f"Of {len(builders())} networks {len(run)} were run: {', '.join(parts)}. Not run: {', '.join(missing) or 'none'}."


if __name__ == "__main__":
    main()
