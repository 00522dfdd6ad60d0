"""Commands and options of `autosparse` are pinned: people's scripts depend on them."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

AUTOSPARSE = str(Path(sys.executable).parent / "autosparse")
Typed = Callable[..., subprocess.CompletedProcess[str]]

SURFACE = {
    "run": {"--recipe", "--spec", "--name", "--set", "--force", "--open"},
    "validate": {"--recipe", "--spec", "--name", "--set"},
    "plan": {"--recipe", "--spec", "--name", "--set", "--price", "--json"},
    "sweep": {"--recipe", "--spec", "--name", "--set", "--over", "--dry-run", "--force", "--json"},
    "bundle": {"--out", "--over", "--against", "--check", "--json"},
    "init": {"--network", "--data", "--budget", "--set", "--force"},
    "recipes": {"--json"},
    "show": {"--json"},
    "report": {"--out"},
    "table": {"--markdown", "--latex", "--csv", "--json", "--against", "--over", "--costs", "--plot", "--out"},
    "valley": {"--first", "--second", "--seed", "--set"},
    "prune": {
        *("--scorer", "--density", "--data", "--out", "--batches", "--batch-size", "--min-per-layer", "--seed"),
        *("--method", "--cost", "--ignore", "--details"),
    },
    "inspect": {"--json"},
    "compact": {"--out"},
    "export": {"--out"},
    "up": {"--expose"},
    "down": set(),
    "status": {"--json"},
    "doctor": {"--json"},
    "notify": {"--on", "--remove", "--list", "--test", "--json"},
    "gc": {"--older-than", "--delete", "--json"},
    "rm": {"--step", "--keep-days", "--keep-bytes", "--keep-tables", "--scorers", "--delete", "--json"},
    "sync": set(),
    "scorers": {"--data", "--label", "--promote", "--alias", "--force", "--json"},
}


def test_commands_are_listed_and_the_program_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    listed = subprocess.run([AUTOSPARSE, "--help"], capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2  # of the processor: other work may wait for it too
    assert listed.returncode == 0 and not listed.stderr
    assert all(f" {command} " in listed.stdout for command in SURFACE)


@pytest.mark.parametrize("command", [command for command, options in SURFACE.items() if options])
def test_options(command: str, typed: Typed) -> None:
    shown = typed(command, "--help")
    assert shown.returncode == 0
    assert all(option in shown.stdout for option in SURFACE[command])


def test_the_list_of_recipes_is_json_too(typed: Typed) -> None:
    listed = json.loads(typed("recipes", "--json").stdout)
    assert "pipeline" in listed["demo"] and all(listed.values())


@pytest.mark.parametrize("line", [["recipes", "small_cifar"], ["--help"]])
def test_a_reader_that_leaves_hears_nothing_more(line: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([AUTOSPARSE, *line], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_work_goes_on_when_its_reader_leaves(tmp_path: Path) -> None:
    program = (
        "import sys, time; from autosparse.flows.standard_output import outlive_reader; outlive_reader();"
        "from rich.console import Console; console = Console()\n"
        "for turn in range(5000): print('a line of a run'); console.print('another', turn)\n"
        "open(sys.argv[1], 'w').write('all of it')"
    )
    line = [sys.executable, "-c", program, str(tmp_path / "result")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout and run.stderr
        assert run.stdout.readline() == "a line of a run\n"
        run.stdout.close()
        assert (run.wait(60), run.stderr.read()) == (0, "")
    assert (tmp_path / "result").read_text() == "all of it"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_completion(tmp_path: Path) -> None:
    there = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    subprocess.run([AUTOSPARSE, "--install-completion"], env=there, capture_output=True, timeout=120, check=True)
    ask = """
        . ~/.bashrc
        for words in "autosparse va" "autosparse validate --re"; do
            COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); _autosparse; echo "${COMPREPLY[@]}"
        done
    """
    offered = subprocess.run(["bash", "-c", ask], env=there, capture_output=True, text=True, timeout=60)
    assert offered.stdout.splitlines() == ["validate valley", "--recipe"], offered


def test_run_help_lists_the_recipes(typed: Typed) -> None:
    shown = typed("run", "--help").stdout
    assert all(name in shown for name in ("demo", "smoke", "small_cifar", "cifar10_resnet18"))


def test_help_imports_no_large_package() -> None:
    probe = "import sys, autosparse.flows.cli; print(sorted({'torch', 'prefect', 'ray', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60).stdout.strip() == "[]"


def test_a_recipe_prints_as_a_whole_spec(typed: Typed) -> None:
    spec = json.loads(typed("recipes", "small_cifar").stdout)
    assert spec["irp"]["rounds"] == 10
    assert spec["fanout"]["densities"] == [0.05, 0.02]


def refused(done: subprocess.CompletedProcess[str], message: str, home: Path) -> bool:
    one_line = message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    return done.returncode == 2 and one_line and not done.stdout and not (home / "storage").exists()


def test_the_program_itself_ends_with_status_2_and_one_line(clean_settings: Path) -> None:
    done = subprocess.run([AUTOSPARSE, "run", "--recipe", "dmeo"], capture_output=True, text=True, timeout=120)
    assert refused(done, "error: recipe: 'dmeo' is not known; did you mean 'demo'?", clean_settings), done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--recipe", "no_such_package:x"), "(not importable: No module named 'no_such_package')"),
        (("run", "--recipe", "smoke", "--set", "irp.rounds=0"), "irp.rounds: 0 is not allowed; allowed: >= 1"),
        (("run", "--recipe", "smoke", "--set", "irp.roundz=3"), "did you mean 'rounds'?"),
        (("run", "--recipe", "smoke", "--set", "irp.final_density=1.7"), "irp.final_density: 1.7 is not allowed; allowed: > 0 and <= 1"),
        (("run", "--recipe", "smoke", "--set", 'fanout.methods=["sinp"]'), "'sinp' is not known; did you mean 'snip'?"),
        (
            ("run", "--recipe", "smoke", "--set", "fanout.methods=[snip,math:sqrt]"),
            "'math:sqrt' is not allowed; allowed: package.module:object",
        ),
        (("run", "--recipe", "smoke", "--set", "data.name=digitz"), "data.name: 'digitz' is not known; did you mean 'digits'?"),
        (("run", "--recipe", "smoke", "--set", "irp.networks.0.name=lenet"), "'lenet' is not known"),
        (("run", "--recipe", "smoke", "--set", "irp.job.workers=64"), "irp.job.cpus_per_worker"),
        (("run", "--recipe", "smoke", "--set", "irp.job.gpus_per_worker=4"), "irp.job.gpus_per_worker"),
        (("run", "--recipe", "smoke", "--name", "../x"), "name: '../x' is not allowed"),
        (("run", "--recipe", "small_cifar", "--set", "data.path=nowhere"), "nowhere"),
        (("show", "nothing"), "run: 'nothing' is not in"),
        (("gc", "--older-than", "-1"), "--older-than: -1.0 is not allowed; allowed: >= 0 hours"),
        (("sync", "nothing"), "run: 'nothing' has no runs/nothing/run.json"),
        (("report", "nothing"), "run: 'nothing' is not in"),
        (("sweep", "--recipe", "smoke"), "--over: 'none' is not allowed; allowed: one or more of FIELD=VALUE,VALUE"),
        (
            ("sweep", "--recipe", "smoke", "--over", "fanout.trai.lr=1,2"),
            "--over: 'fanout.trai.lr' is not known; did you mean 'fanout.train'?",
        ),
        (
            ("sweep", "--recipe", "smoke", "--set", "irp.rounds=1", "--over", "irp.rounds=1,2"),
            "--over: 'irp.rounds' is not allowed; allowed: a field that --set does not name",
        ),
        (("bundle", "nothing"), "--out: 'none' is not allowed; allowed: the file to write, as results.zip"),
        (("table",), "RUN: 'none' is not allowed; allowed: one or more names of runs"),
        (("table", "nothing"), "run: 'nothing' is not in"),
        (("table", "nothing", "--latex", "--csv"), "--csv: 'beside --latex' is not allowed; allowed: one form of the table"),
        (("table", "nothing", "--plot", "x.jpg"), "--plot: 'x.jpg' is not allowed; allowed: a file that ends in .png or .svg"),
        (("valley", "nothing", "--first", "dense", "--second", "snip"), "run: 'nothing' is not in"),
        (
            ("run", "--recipe", "smoke", "--set", 'valley.pairs=[["dense", "sinp@0.1"]]'),
            "'sinp@0.1' is not known; did you mean 'snip@0.1'?",
        ),
        (
            ("prune", "m:f", "--scorer", "x", "--density", "2", "--data", "digits", "--out", "m.safetensors"),
            "--density: 2.0 is not allowed",
        ),
        (("prune", "m:f", "--scorer", "http://x", "--density", ".2", "--data", "digits", "--out", "m.safetensors"), "--scorer: 'http://x'"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(arguments: tuple[str, ...], message: str, clean_settings: Path, typed: Typed) -> None:
    done = typed(*arguments)
    assert refused(done, message, clean_settings), done
