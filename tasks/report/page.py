"""One self-contained HTML page about a run, from storage alone: the values that templates/page.html shows."""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autosparse.models.methods.names import family, is_learned
from autosparse.models.specs.grain import number_of
from autosparse.models.specs.run_specs import SCORER
from autosparse.models.training.objective import Metric
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.report import methods as report_methods
from autosparse.tasks.report import parts
from autosparse.tasks.report.valley import valleys
from autosparse.tasks.results.advice import Advice, advised, opening
from autosparse.tasks.results.choice import python_lines
from autosparse.tasks.results.claims import claim_cells, claims, claims_head
from autosparse.tasks.results.drift_rows import drift_rows
from autosparse.tasks.results.frontier import frontiers
from autosparse.tasks.results.frontier_words import LEGEND, amount
from autosparse.tasks.results.ledger import Ledger, ledger, ticket_seconds
from autosparse.tasks.results.measured import gain, scaled, title_of, value_of
from autosparse.tasks.results.paired import Paired
from autosparse.tasks.results.record import RunRecord, load_record
from autosparse.tasks.results.rows import compacted
from autosparse.tasks.results.verdicts import NO_RESULT, Gap, controls, gaps, on_scorer, panels

SECTIONS = (
    ("use", "What to use"),
    ("accuracy", ""),  # called by what was measured
    ("results", "Results"),
    ("frontier", "Frontiers"),
    ("claims", "Claims"),
    ("gap", "Gap closure"),
    ("controls", "Controls"),
    ("layers", "Layers"),
    ("overlap", "Overlap"),
    ("survival", "Survival"),
    ("drift", "Drift"),
    ("valley", "Valleys"),
    ("ledger", "Cost"),
    ("provenance", "Provenance"),
)


def report_page(store: Store, name: str, command: str | None = None) -> str:
    """The page about the run `name` of a store; `command` makes the run again. What is missing is left out, and said.

    Raises DataError where there is no such run.
    """
    record = load_record(store, name)
    found, costs = gaps(record.arms), ledger(record)
    layers, why_layers = parts.layer_pictures(store, record)
    overlaps, why_overlap = parts.overlap_pictures(store, record)
    survival, why_survival = parts.survival_pictures(store, record)
    compared = valleys(store, record)
    macs, why_macs = parts.macs_tables(store, record)
    measured = title_of(record.rows).capitalize()
    left_out = _left_out(record) | (set() if compared else {"valley"})
    paid = frontiers(record.arms, record.scores, ticket_seconds(record))
    chosen, verdict = advised(record.arms, paid), on_scorer(record.spec, found)
    claimed = claims(record.arms, record.scores, costs)
    return (
        _environment()
        .get_template("page.html")
        .render(
            name=record.name,
            headline=opening(chosen) or verdict or NO_RESULT,
            verdict=verdict if chosen else "",
            lead=_lead(record),
            notes=_notes(record),
            unfinished=bool(_open_steps(record)),
            tiles=_tiles(record, found, costs, chosen),
            measured=measured,
            sections={key: title or measured for key, title in SECTIONS if key not in left_out},
            learns=bool(record.spec.irp.seeds),
            valleys=[{**one, "pictures": _pictures(one["pictures"])} for one in compared],
            curves=_pictures(parts.curves(record)),
            results=parts.result_tables(record),
            compacted=compacted(record.rows),
            failed=parts.failed_arms(record),
            many=len(panels(record.rows)) > 1,
            frontiers=parts.frontier_tables(paid),
            frontier_curves=_pictures(parts.frontier_pictures(paid)),
            frontier_legend=LEGEND,
            claims={"head": claims_head(claimed), "lines": [claim_cells(claim) for claim in claimed]},
            gaps=found,
            advices=chosen,
            use=_use(store, record, chosen),
            controls=controls(record.arms),
            drift=drift_rows(record.scores),
            layers=_pictures(layers),
            overlaps=_pictures(overlaps),
            survival=_pictures(survival),
            macs=macs,
            why={"layers": why_layers, "overlap": why_overlap, "survival": why_survival, "macs": why_macs},
            ledger=costs,
            arm_costs=report_methods.cost_tables(record),
            cards=report_methods.cards(record),
            break_even=_break_even(costs),
            facts=_facts(record),
            command=command,
            spec=json.dumps(record.view["spec"], indent=2),
        )
    )


def _left_out(record: RunRecord) -> set[str]:
    """Sections about a scorer that no arm asks for, and about weights of sources that there are not."""
    judged = any(map(is_learned, record.spec.fanout.all_methods))
    return (set() if judged else {"claims", "gap", "drift"}) | (set() if record.spec.irp.seeds else {"survival"})


def tested(found: Paired, metric: Metric) -> str:
    """`± 0.50 points, p=0.2, n=2`: standard error and paired test, as far as n allows."""
    error = [f"± {gain(metric, found.error).lstrip('+')}"] if found.error is not None else []
    test = [f"p={found.p_value:.2g}"] if found.p_value is not None else []
    return ", ".join([*error, *test, f"n={found.n}"])


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("autosparse.tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["gain"] = lambda difference, metric: gain(metric, difference)
    environment.filters["scaled"] = lambda difference, metric: scaled(metric, difference)
    environment.filters["tested"] = tested
    environment.filters["seconds"] = duration
    environment.filters["number"] = number_of
    environment.filters["density"] = lambda value: "-" if value is None else f"{value:.3g}"
    environment.filters["count"] = lambda value: "-" if value is None else f"{value:.3g}"
    environment.filters["mebibytes"] = lambda value: "-" if value is None else f"{value / 2**20:.0f} MiB"
    environment.filters["amount"] = amount
    environment.filters["value"] = lambda value: "-" if value is None else f"{value:.4f}"
    return environment


def _pictures(found: list[parts.Picture]) -> list[dict[str, Any]]:
    return [{**picture, "svg": Markup(picture["svg"])} for picture in found]  # matplotlib has escaped its texts


def _lead(record: RunRecord) -> str:
    irp, fanout = record.spec.irp, record.spec.fanout
    sources = ", ".join(network.label for network in irp.networks)
    started = record.view["ids"].get("started")
    trained = f"{irp.rounds} IRP rounds of {sources} (seeds {_list(irp.seeds)}) on {record.spec.data.title} down to density "
    return (
        f"{f'{trained}{irp.final_density:g}; ' if irp.seeds else f'On {record.spec.data.title}, without an IRP: '}"
        f"{len(fanout.all_methods)} methods on {', '.join(target.label for target in fanout.targets)} "
        f"at densities {_list(fanout.densities)}{f' and shares {_list(fanout.shares)}' if fanout.shares else ''}, "
        f"seeds {_list(fanout.seeds)}." + (f" Started {started}." if started else "")
    )


def _open_steps(record: RunRecord) -> list[str]:
    irp = record.spec.irp
    rounds = irp.rounds * len(irp.networks) * len(irp.seeds)
    steps = [f"IRP rounds: {len(record.rounds)} of {rounds} are there"] if len(record.rounds) < rounds else []
    steps += ["the feature data set"] if irp.seeds and record.features is None else []
    steps += ["the scorer"] if irp.seeds and record.scorer is None else []
    arms, expected = len(record.finished_arms), len(record.planned_arms)
    return steps + ([f"arms: {arms} of {expected} are there"] if arms < expected else [])


def _notes(record: RunRecord) -> list[str]:
    single = sorted({row["n"] for row in record.rows if row["n"]}) == [1]
    return _open_steps(record) + (["spread over seeds: every cell is one seed, so small differences mean little"] if single else [])


def _tiles(record: RunRecord, found: list[Gap], costs: Ledger, chosen: list[Advice]) -> list[dict[str, str]]:
    tiles = _scorer_tiles(record, found, costs) if record.spec.irp.seeds else [_best_tile(one) for one in chosen]
    failed = sum(value_of(arm) is None for arm in record.arms)
    beside = len(record.arms) - len(record.finished_arms)
    more = (f"{failed} failed" if failed else "none failed") + (f"; {beside} controls beside them" if beside else "")
    return [*tiles, {"what": "arms", "value": f"{len(record.finished_arms)} / {len(record.planned_arms)}", "more": more}]


def _best_tile(advice: Advice) -> dict[str, str]:
    one = advice.choice
    dense = f"; dense {one.dense:.4f}" if one.dense is not None else ""
    return {"what": f"best at {one.density:g}", "value": f"{one.value:.4f}", "more": f"{one.best} on {one.target}{dense}"}


def _scorer_tiles(record: RunRecord, found: list[Gap], costs: Ledger) -> list[dict[str, str]]:
    tiles = []
    judged = [gap for gap in found if gap.lead is not None and family(gap.method) == SCORER]
    if judged:
        last = judged[-1]
        where = f"{last.target}, {number_of([last.method])} {last.density:g}"
        tiles.append(
            {"what": "scorer", "value": f"{last.scorer:.4f}", "more": f"{gain(last.metric, last.lead)} beside {last.best_name}; {where}"}
        )
        closed = f"{100 * last.closure:.0f} %" if last.closure is not None else "not defined"
        tiles.append({"what": "gap closure", "value": closed, "more": last.why or f"of the way to the ticket; {where}"})
    if record.scorer:
        group, metrics = next(iter(record.scorer["metrics"].items()), ("", {}))
        if group:
            value = f"{metrics['spearman_pooled']:.3f}"
            tiles.append({"what": "held-out Spearman", "value": value, "more": f"pooled, on {group} the scorer has not seen"})
    reuses = costs.networks
    return [
        *tiles,
        {"what": "pays from", "value": "-" if reuses is None else f"{reuses} uses", "more": "of the scorer, instead of an IRP each"},
    ]


def _break_even(costs: Ledger) -> str:
    reuses, why = costs.break_even
    if reuses is None:
        text = f"Break-even is not defined: {why}."
    else:
        text = (
            f"IRP, features and scorer fit pay for themselves after {reuses:.2f} reuses of the scorer, "
            f"that is from network {costs.networks} on, "
            f"compared with an IRP of {duration(costs.irp_per_network or 0.0)} for every new network."
        )
    share = next((cost.share for cost in costs.methods if cost.name == SCORER), None)
    return text if share is None else f"{text} Scoring by the scorer takes {100 * share:.1f} % of one retraining."


def _use(store: Store, record: RunRecord, chosen: list[Advice]) -> dict[str, Any]:
    """How the method of the smallest density is used: its lines of Python, and its arm by the name that commands take."""
    if not chosen:
        return {}
    last = min((one.choice for one in chosen), key=lambda choice: choice.density)
    return {"python": python_lines(last, store.uri(RunPaths(record.name).scorer)), "arm": last.arm}


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    view, ids = record.view, record.view["ids"]
    made = record.made_by
    facts = [("run", record.name), ("spec fingerprint", view["fingerprint"])]
    facts += [("image data", parts.digests(record.data))] if record.data else []
    facts += [("feature data set", f"{record.features['digest']} ({record.features['rows']:,} rows)")] if record.features else []
    if view["scorer"]:
        facts.append(("scorer", f"{view['scorer']['kind']}, version {view['scorer'].get('version', 'not registered')}"))
    facts += [("made by", ", ".join(f"{key} {value}" for key, value in sorted(one.items()))) for one in made]
    facts += [(key.replace("_", " "), str(value)) for key, value in sorted(ids.items()) if value and key != "name"]
    return facts


def _list(values: tuple[Any, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
