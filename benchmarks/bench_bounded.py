"""100 million synthetic rows through write, commit, read and scoring by the default scorer: the peak of memory.

Run with `python -m benchmarks.bench_bounded`. Target: less than 1.5 GiB at the peak, whatever the number of rows.
"""

import tempfile
from pathlib import Path

import torch

from autosparse.models.features import LayerFacts
from autosparse.models.scorers.criterion import score_weights
from autosparse.models.scorers.registry import build_scorer
from benchmarks.bench_feature_table import BOUNDED_ROWS, Columns, bounded
from benchmarks.reporting import options, report


def main() -> None:
    """Run from the command line."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=BOUNDED_ROWS, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    scorer = build_scorer("mlp", hidden=(32, 32), seed=0).eval()
    facts = LayerFacts(
        name="layer",
        kind="conv",
        shape=(512, 512, 3, 3),
        fan_in=4608,
        fan_out=4608,
        depth=0.5,
        numel=512 * 512 * 9,
        weight_std=0.02,
        gradient_rms=1e-3,
    )

    def use(columns: Columns) -> None:
        score_weights(scorer, torch.from_numpy(columns["weight"]), torch.from_numpy(columns["gradient"]), facts)

    with tempfile.TemporaryDirectory() as folder:
        rows = list(bounded(Path(folder), args.rows, use))
    report("write, read and score in bounded memory", rows, args)


if __name__ == "__main__":
    main()
