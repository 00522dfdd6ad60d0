"""The report page: numbers that can be checked on paper, texts that stay texts, nothing that is loaded."""

import logging
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autosparse.flows.report_command import write_report
from autosparse.models.errors import DataError
from autosparse.models.specs.fields import override
from autosparse.models.training.objective import ACCURACY
from autosparse.storage.feature_table import open_dataset
from autosparse.storage.mask_files import dump_mask
from autosparse.storage.paths import RunPaths, report
from autosparse.storage.store import Store
from autosparse.tasks import summarize_arms
from autosparse.tasks.report.page import duration, report_page
from autosparse.tasks.report.survival_map import survival_map
from autosparse.tasks.results.measured import gain
from autosparse.tasks.results.record import layer_density_rows, load_record

CHROMIUM = shutil.which("chromium")
NASTY = '<script>alert(1)</script><img src=x onerror="alert(2)">$x_1$'


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of the page with single spaces."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def section(page: str, key: str) -> str:
    """The text of one section."""
    return Tags(page.split(f'<h2 id="{key}">')[1].split("<h2 ")[0]).text


@pytest.fixture(scope="module")
def page(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_page(made.run(tmp_path_factory.mktemp("run")), made.name, "autosparse run --recipe smoke --name made")


def test_verdict_results_and_gap_closure(page: str) -> None:
    assert "the scorer is ahead at 1 and behind at 1 of 2 densities" in page
    results = section(page, "results")
    assert "scorer 0.7700 ± 0.0141 n=2 0.5000 ± 0.0000 n=2" in results
    assert "magnitude 0.6000 ± 0.0000 n=2 0.4000 n=1 1 failed" in results
    assert "lenet300-100 snip+invert 0.1 10 loss: nan at step 3" in results
    gap = section(page, "gap")
    assert "0.1 scorer 60.0 % 0.7700 +6.00 points ± 0.00 points, n=2 0.7100 snip 0.8100" in gap  # (.77 - .71) / (.81 - .71)
    assert "0.02 scorer not defined (no ticket) 0.5000 -10.00 points ± 0.00 points, n=2 0.6000 snip -" in gap


def test_what_to_use_comes_first(page: str) -> None:
    found = section(page, "use")
    assert page.index('id="use"') < page.index('id="accuracy"')
    assert "0.1 scorer 0.7700 n=2" in found and "clearly better than snip +6.00 points" in found
    assert "autosparse.prune(model, batches, method=" in found and "autosparse.hold(model, mask, optimizer)" in found
    assert "autosparse compact" in found


def test_controls_with_their_verdicts(page: str) -> None:
    found = section(page, "controls")
    # .01 and .02, method - control: t = 3 with one degree of freedom, p = 1 - 2 atan(3) / pi = .2048; .01 and 0: t = 1, p = .5
    assert "scorer+shuffle 0.1 +1.50 points ± 0.50 points, p=0.2, n=2 weights matter 0.7700 0.7550" in found
    assert "scorer+shuffle 0.02 +0.50 points ± 0.50 points, p=0.5, n=2 only layer densities matter 0.5000 0.4950" in found
    assert "scorer+reinit 0.1 +0.00 points ± 1.00 points, p=1, n=2 initial values do not matter 0.7700 0.7700" in found
    assert "snip+invert 0.1 - n=0 not defined: a value is missing 0.7100 -" in found


def test_claims_stand_on_the_page(page: str) -> None:
    found = section(page, "claims")
    assert "0.1 scorer (strict) 0.7700 (n=2) +0.0600 ± 0.0000 snip (n=2)" in found
    assert "60.0 % +0.0150 ± 0.0050 (n=2, p=0.2) weights matter 20.0 s / 40.0 s (50.0 %) 3.00 reuses" in found
    assert "- +0.0050 ± 0.0050 (n=2, p=0.5) only layer densities matter" in found  # no ticket at .02


def test_drift_stands_on_the_page(made: SimpleNamespace, tmp_path: Path) -> None:
    store = made.run(tmp_path)
    assert "Left out: no target was scored" in section(report_page(store, made.name), "drift")
    step = RunPaths(made.name).scores(made.target, 10, "scorer")
    depth = {"column": "depth", "kind": "new values", "distance": 0.5, "threshold": 0.05, "new": 0.25, "values": [0.1, 0.2]}
    weight = {"column": NASTY, "kind": "shifted", "distance": 0.31, "threshold": 0.05, "new": 0.0, "values": []}
    told = {"source": "resnet8-w4", "warning": "features unlike", "columns": [depth, weight, weight, weight]}
    store.write_json(report(step), {**store.read_json(report(step)), "drift": told})
    found = section(report_page(store, made.name), "drift")
    assert f"{made.target} 10 scorer resnet8-w4 warning depth 0.50 2 new, 25 % of weights , {NASTY} 0.31 shifted, at most 0.05" in found
    assert found.count(NASTY) == 2  # three columns in all


def test_cost_and_break_even(page: str) -> None:
    found = section(page, "ledger")
    assert "IRP, 4 rounds of 2 sources 4.0 min 2.0 min per network" in found
    assert "after 3.00 reuses of the scorer, that is from network 3 on" in found  # (240 + 10 + 50) / (120 - 20)
    assert "scorer 20.0 s n=2 40.0 s n=4 50.0 %" in found
    assert "Scoring by the scorer takes 50.0 % of one retraining." in found
    assert "Dense: 5.02e+04 per image, 7.71e+07 for one retraining." in found  # 3 * 50,200 * 512 images
    assert "scorer 45.2 % 3.5e+07 2.0 % 1.5e+06" in found  # (19,200 + 3,000 + 500) and (384 + 600) of 50,200


def test_methods_of_training_stand_where_they_landed_with_their_cost_and_card(made: SimpleNamespace, tmp_path: Path) -> None:
    text = "grda(c=0.05,mu=0.8)"
    spec = made.spec()
    spec = replace(spec, fanout=replace(spec.fanout, methods=(*spec.fanout.methods, text)))
    store = made.run(tmp_path, spec)
    arm = {"target": made.target, "dataset": "digits", "method": text, "density": None, "status": "ok", "seconds": 9.0}
    costs = {"inference_macs": 1200.0, "training_macs": 3.5e6, "training_seconds": 8.0, "images_per_second": 640.0}
    for seed, accuracy in ((10, 0.7), (11, None)):
        known = {"seed": seed, "accuracy": accuracy, "kept_density": 0.25 if accuracy else None, "density_all": 0.5 if accuracy else None}
        more = {**costs, "peak_memory_bytes": 300 * 2**20} if accuracy else {"status": "diverged", "reason": "train.loss: nan at step 7"}
        made.report(store, RunPaths(made.name).arm(made.target, seed, text, None), **{**arm, **known, **more})
    page = report_page(store, made.name)
    results = section(page, "results")
    assert f"{text} 0.25 0.5 0.7000 n=1 1 failed" in results
    assert f"lenet300-100 {text} - 11 train.loss: nan at step 7" in results
    found = section(page, "ledger")
    assert f"{text} - 0.25 0.5 1.2e+03 3.5e+06 8.0 s 640 images/s 300 MiB" in found
    assert "Directional pruning" in found


def compared(made: SimpleNamespace, folder: Path, arms: dict[str, dict[float, tuple[float, float]]]) -> Store:
    """A run of the made spec without sources, as far as these arms: method -> density -> accuracies of the seeds 10 and 11."""
    changes = {"irp.seeds": [], "fanout.ticket": False, "fanout.methods": ["snip", "magnitude"]}
    store, run = made.begin(folder, override(made.spec(), changes)), RunPaths(made.name)
    for method, cells in arms.items():
        for density, values in cells.items():
            for seed, value in zip((10, 11), values, strict=True):
                arm = {"target": made.target, "dataset": "digits", "method": method, "density": density, "seed": seed, "status": "ok"}
                made.report(store, run.arm(made.target, seed, method, density), **arm, accuracy=value, kept_density=density, seconds=4.0)
    return store


def test_a_run_without_sources_speaks_of_no_scorer_and_no_irp(made: SimpleNamespace, tmp_path: Path) -> None:
    values = {"dense": {1.0: (0.9, 0.92)}, "snip": {0.1: (0.7, 0.72), 0.02: (0.6, 0.6)}, "magnitude": {0.1: (0.6, 0.6), 0.02: (0.4, 0.5)}}
    page = report_page(compared(made, tmp_path, values), made.name)
    text = Tags(page.split("<header>")[1].split("<details>")[0]).text
    assert "At density 0.02 snip reaches accuracy 0.600 (dense 0.910)." in text
    assert "On digits, without an IRP: 2 methods on lenet300-100 at densities 0.1, 0.02, seeds 10, 11." in text
    assert "best at 0.1 0.7100 snip on lenet300-100; dense 0.9100" in text and "arms 10 / 10 none failed" in text
    assert "not finished" not in text and "scorer" not in text and text.count("IRP") == 1 and '"irp"' not in unescape(page)
    gone = ("claims", "gap", "drift", "survival", "valley")
    assert not any(f'id="{key}"' in page or f'href="#{key}"' in page for key in gone)
    assert "Break-even" not in section(page, "ledger") and "snip - 4.0 s n=4" in section(page, "ledger")


def test_an_unfinished_run_without_sources_lacks_its_arms_alone(made: SimpleNamespace, tmp_path: Path) -> None:
    text = Tags(report_page(compared(made, tmp_path, {}), made.name)).text
    assert "No result yet: no arm at a density below 1 has a value." in text and "arms: 0 of 10 are there" in text
    assert "feature data set" not in text and "rounds" not in text.split("The whole spec")[0]


def test_overlap_is_the_share_of_the_four_weights(page: str) -> None:
    shown = page.split('<h2 id="overlap">')[1].split("<h2 ")[0]
    numbers = re.findall(r">(\.\d\d|1\.00)</text>", shown.split("</svg>")[0])
    assert len(numbers) == 36  # three methods and three controls
    assert numbers[0] == "1.00" and ".75" in numbers and ".25" in numbers and ".50" in numbers
    assert "Masks of seed 10. By chance: 0.1." in shown


def test_layers_without_a_weight_are_named(page: str) -> None:
    assert "Layers left empty: snip 1 of 3, magnitude 1 of 3, scorer 1 of 3." in section(page, "layers")


def test_layers_stand_in_the_order_of_the_network(made: SimpleNamespace, tmp_path: Path) -> None:
    store, step = made.begin(tmp_path, made.spec()), RunPaths(made.name).scores(made.target, 10, "snip")
    store.write("mask", dump_mask({"z.stem": torch.ones(4, dtype=torch.bool), "a.head": torch.ones(4, dtype=torch.bool)}))
    cuts = {"0.1": {"mask": "mask", "layer_densities": {"z.stem": 1.0, "a.head": 0.5}}}
    made.report(store, step, method="snip", seed=10, target=made.target, cuts=cuts)
    assert list(store.read_json(report(step))["cuts"]["0.1"]["layer_densities"]) == ["a.head", "z.stem"]
    rows = layer_density_rows(store, load_record(store, made.name), made.target, 0.1)
    assert list(rows["snip"].items()) == [("z.stem", 1.0), ("a.head", 0.5)]


def test_pictures_are_of_what_was_cut_and_say_share_of_a_grain(made: SimpleNamespace, tmp_path: Path) -> None:
    """The densities of the spec are .1 and .02; a scorer over channels is cut at shares alone."""
    store, method = made.begin(tmp_path, made.spec()), "snip(grain=channels)"
    layers = {"stem": 0.5, "head": 0.5}
    cuts = {"0.25": {"mask": "none", "layer_densities": layers, "density": 0.5}}
    made.report(
        store, RunPaths(made.name).scores(made.target, 10, method), method=method, seed=10, target=made.target, cuts=cuts, seconds=1.0
    )
    found = section(report_page(store, made.name), "layers")
    assert f"{made.target} at share 0.25" in found and "at density" not in found


def test_survival_map_by_hand(made: SimpleNamespace, tmp_path: Path) -> None:
    store = made.run(tmp_path)
    record = load_record(store, made.name)
    assert record.features
    found = survival_map(open_dataset(f"{store.root}/{RunPaths(made.name).features}/{record.features['digest']}"))
    cells = {(int(row), int(column)): found.mean[row, column] for row, column in np.argwhere(found.count)}
    # |w| .55 / (3 / 36) = 6.6; g * sign(w) (3 +- .52) / (6 / 36) = 21.1 and 14.9; 9 and -9 go to the edge
    assert cells == {(6, 21): 2.0, (6, 14): 1.0, (35, 0): 0.0}
    assert (found.rows, int(found.count.sum()), found.rounds) == (36, 36, 2)


def test_cells_of_few_weights_are_blank(made: SimpleNamespace, tmp_path: Path) -> None:
    store, run = made.begin(tmp_path, made.spec()), RunPaths(made.name)
    made.features(store, run, copies=2)
    found = survival_map(open_dataset(f"{store.root}/{run.features}/{store.read_json(report(run.features))['digest']}"))
    assert found.count.max() == 4 and np.isnan(found.mean).all()


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    tags = Tags(page).tags
    assert not {"script", "img", "iframe", "object", "embed", "audio", "video"} & {tag for tag, _ in tags}
    addresses = [value or "" for _, attrs in tags for key, value in attrs.items() if key in ("src", "href", "xlink:href", "srcset")]
    assert addresses and all(address.startswith(("#", "data:")) for address in addresses)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page and "http://127.0.0.1:5000/#/runs/1" in page  # the address of a server is a text
    known = {value for _, attrs in tags if (value := attrs.get("id"))}
    assert len(known) == len([1 for _, attrs in tags if "id" in attrs]), "two elements have the same id"
    assert {address[1:] for address in addresses if address.startswith("#")} <= known


def test_names_from_a_spec_are_escaped_everywhere(made: SimpleNamespace, tmp_path: Path) -> None:
    store = made.run(tmp_path, made.spec(name=NASTY), target=f"net{NASTY}", reason=NASTY, training_seconds=1.0)
    step = RunPaths(made.name).scores(made.target, 10, "nasty")
    made.report(store, step, method=NASTY, seed=10, target=made.target, cuts={}, seconds=1.0)
    for number, accuracy in enumerate((0.5, None)):
        arm = {"target": made.target, "dataset": NASTY, "method": NASTY, "density": 0.1, "seed": number, "kept_density": 0.1}
        made.report(store, f"{step}/density-{number}", accuracy=accuracy, reason=NASTY, seconds=1.0, status="ok", **arm)
    page = report_page(store, made.name, f"autosparse run --set 'data.name={NASTY}'")
    tags = Tags(page)
    assert not {"script", "img"} & {tag for tag, _ in tags.tags}
    assert not [key for _, attrs in tags.tags for key in attrs if key.startswith("on")]
    assert tags.text.count(NASTY) > 10


@pytest.mark.parametrize("gone", ["irp", "features", "scorer", "fanout", "data"])
def test_a_part_that_is_missing_is_left_out_and_said(made: SimpleNamespace, tmp_path: Path, gone: str) -> None:
    store = made.run(tmp_path)
    store.delete(f"{RunPaths(made.name).root}/{gone}")
    page = report_page(store, made.name)
    said = {
        "irp": "IRP rounds: 0 of 4 are there",
        "features": "there is no feature data set yet",
        "scorer": "no scorer fit",
        "fanout": "no arm has been retrained yet",
        "data": "its data set has not been read yet",
    }
    assert said[gone] in unescape(page)
    assert ("This run is not finished" in page) == (gone != "data")


def test_a_run_that_has_only_begun(made: SimpleNamespace, tmp_path: Path) -> None:
    page = report_page(made.begin(tmp_path, made.spec()), made.name)
    assert "No verdict yet" in page and "This run is not finished" in page and "<svg" not in page


def test_damaged_features_do_not_take_the_page_with_them(made: SimpleNamespace, tmp_path: Path) -> None:
    store: Store = made.run(tmp_path)
    part = next(key for key in store.list(RunPaths(made.name).features) if key.endswith(".parquet"))
    store.write(part, b"PAR1")
    assert "damaged" in section(report_page(store, made.name), "survival")


def test_the_command_writes_the_page(made: SimpleNamespace, clean_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.run(clean_settings / "storage")
    monkeypatch.chdir(tmp_path)
    assert write_report(made.name, None) == Path("report-made.html")
    assert "autosparse run --recipe smoke --name made --set" in unescape((tmp_path / "report-made.html").read_text())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Not a directory|exists"):
        write_report(made.name, tmp_path / "file" / "page.html")


def test_a_page_that_fails_is_a_warning_in_the_log_of_the_run(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(summarize_arms, "log", lambda: logging.getLogger("flow"))  # Prefect's needs a flow run
    kept: list[str] = []
    tracker = SimpleNamespace(file=lambda run, name, content: kept.append(name))
    run: Any = SimpleNamespace(store=made.run(tmp_path), name=made.name, paths=RunPaths(made.name), tracker=tracker, mlflow_run="1")
    summarize_arms._store_page(run, "autosparse run")
    assert kept == ["summary/report.html"] and b"autosparse run" in run.store.read(f"{run.paths.summary}/report.html")
    assert not caplog.messages
    run.name = "gone"
    summarize_arms._store_page(run, None)
    assert "no report page (DataError: run: 'gone' is not in" in caplog.messages[0]


def test_how_numbers_read() -> None:
    assert [gain(ACCURACY, None), gain(ACCURACY, 0.0123), gain(ACCURACY, -0.5)] == ["-", "+1.23 points", "-50.00 points"]
    assert [duration(119.94), duration(120), duration(7200)] == ["119.9 s", "2.0 min", "2.0 h"]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_its_window_and_the_console_stays_silent(page: str, tmp_path: Path, width: int) -> None:
    # in a frame, because a headless window cannot be as narrow as a phone
    probe = """const frame = document.querySelector('iframe'), body = document.body
        onload = () => { body.dataset.width = frame.contentDocument.documentElement.scrollWidth
        const loads = frame.contentWindow.performance.getEntriesByType('resource').map(entry => entry.name)
        body.dataset.loads = loads.filter(name => !name.startsWith('data:')).length }"""
    frame = f'<iframe srcdoc="{escape(page)}" style="border: 0; width: {width}px; height: 900px"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!doctype html><body style='margin: 0'>{frame}<script>{probe}</script>")
    picture = tmp_path / "page.png"
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}")
    address = (tmp_path / "frame.html").as_uri()
    shot = [str(CHROMIUM), *options, f"--window-size={max(width, 500)},900", f"--screenshot={picture}", address]
    seen = subprocess.run(shot, capture_output=True, text=True, timeout=100)
    dumped = subprocess.run([str(CHROMIUM), *options, "--dump-dom", address], capture_output=True, text=True, timeout=100)
    assert "CONSOLE" not in seen.stderr + dumped.stderr
    assert picture.stat().st_size > 10_000
    (found,) = re.findall(r'data-width="(\d+)" data-loads="(\d+)"', dumped.stdout)
    assert int(found[0]) <= width
    assert found[1] == "0"
