"""`autosparse prune`: a person's own torch network, any method, a mask; no flow, no Ray, no server but the registry."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from autosparse.flows.assignments import parse_changes
from autosparse.flows.init.asked import data_of, with_test
from autosparse.library.folder import Built, check_out, write_folder
from autosparse.library.mask import Mask
from autosparse.library.pruning import prune
from autosparse.library.scorer import Scorer, scorer_of_files
from autosparse.library.scorer import scorer as read_scorer
from autosparse.models.criteria.registry import find_criterion
from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.methods.names import family, spelled
from autosparse.models.networks.registry import ZOOS
from autosparse.models.specs.grain import WEIGHTS, grain_of, names_grain
from autosparse.models.specs.run_specs import SCORER, SCORER_GROWTH, DataSpec, ScoringSpec
from autosparse.models.training.scoring_rows import scoring_rows
from autosparse.storage.addresses import LOCAL, REGISTRY, S3, address_kind, is_local
from autosparse.storage.image_datasets import DATASETS, PREFIX
from autosparse.tasks import settings as settings_module
from autosparse.tasks.worker.problem import OwnProblem, Problem, open_problem

FILE = ".safetensors"  # what `--out` ends in where it is the mask alone


def prune_network(
    network: str,
    scorer: str | None,
    density: float,
    data: str,
    out: Path,
    *,
    method: str | None = None,
    cost: str | None = None,
    batches: int,
    batch_size: int,
    min_per_layer: int,
    seed: int,
    ignore: tuple[str, ...] = (),
    keywords: tuple[str, ...] = (),
    details: bool = False,
) -> None:
    """Write the mask of `network` at `density` to `out` and print what each layer keeps. Raises SpecError or DataError."""
    if not 0 < density <= 1:
        raise not_allowed("--density", density, "> 0 and <= 1")
    if ":" not in network:
        raise not_allowed("network", network, f"package.module:factory or {', '.join(f'{zoo}:NAME' for zoo in ZOOS)}")
    if out.suffix == FILE and not out.parent.is_dir():
        raise not_allowed("--out", str(out), "a file in a folder that exists")
    settings = settings_module.load()
    settings_module.export(settings)
    spelled_method = spelled("--method", method)[0] if method and names_grain(method) else method
    grain = grain_of(spelled_method or "")
    chosen = _method(family(spelled_method) if spelled_method else None, scorer, settings)
    scoring = ScoringSpec(batches=batches, batch_size=batch_size)
    if out.suffix != FILE:
        check_out(out)
    problem = open_problem(_data(data), settings.cache)
    built = Built(network=network, seed=seed, keywords=parse_changes(keywords, "--keyword", "NAME=VALUE, e.g. depth=3"), **_known(problem))
    module = built.build()
    given = list(problem.few(scoring_rows(problem.sizes["train"], scoring, seed), "cpu", channels_last=True))
    asked: dict[str, Any] = {"density": density, "method": chosen, "grain": grain or WEIGHTS} | ({"cost": cost} if cost else {})
    asked |= {"ignore": ignore, "min_per_layer": min_per_layer}
    mask: Mask = prune(module, given, seed=seed, warn=False, loss=problem.own.own_loss if problem.own else None, **asked)
    mask.about = replace(mask.about, network=network)
    if out.suffix == FILE:
        mask.save(out)
    else:
        write_folder(out, mask, module, built)
    console = Console()
    console.print(mask.summary(module, built.example()), highlight=False, markup=False)
    if details and isinstance(chosen, Scorer) and chosen.found and chosen.found.warning:
        console.print(chosen.found.warning, highlight=False, markup=False)
    console.print(f"kept {mask.kept:,} of {mask.total:,} weights (density {mask.density:.6g}) -> {out}", highlight=False, markup=False)


def _method(method: str | None, scorer: str | None, settings: settings_module.Settings) -> str | Scorer:
    if scorer is None:
        if method in (SCORER, SCORER_GROWTH):
            raise not_allowed("--scorer", None, f"a fitted scorer for --method {method}")
        name = method or "synflow"
        find_criterion(name, "--method")
        return name
    if method not in (None, SCORER, SCORER_GROWTH):
        raise SpecError(f"--method: {method!r} beside --scorer is not allowed; allowed: {SCORER}, {SCORER_GROWTH} or none")
    ahead = method == SCORER_GROWTH
    if address_kind("--scorer", scorer, REGISTRY, LOCAL, S3) == REGISTRY:
        from autosparse.tasks.tracking.tracker import load_scorer_files

        return scorer_of_files(*load_scorer_files(settings, scorer), scorer, ahead=ahead)
    return read_scorer(scorer, ahead=ahead)


def _data(text: str) -> DataSpec:
    """What `--data` means: a name, a task of one's own, or whatever lies in a folder."""
    if text in DATASETS or text.startswith(PREFIX):
        return DataSpec(name=text)
    data = with_test(data_of(text, Path.cwd()), Path.cwd())
    return replace(data, path=str(Path(data.path).expanduser().resolve())) if data.path and is_local(data.path) else data


def _known(problem: Problem) -> dict[str, Any]:
    """What the folder keeps of the data, so that the network can be built again."""
    if isinstance(problem, OwnProblem):
        return {"image_shape": None, "num_classes": None, "task": problem.own.name, "path": problem.data.path}
    return problem.fit
