"""Docker is not everywhere, so these files are held against what they name: paths, programs, options, settings, versions."""

import importlib.util
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import prefect.settings
import pytest
import yaml
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from autosparse.tasks import settings
from tests.unit.docker.helps import COMMANDS

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
CONTAINER_FILES = (
    "docker/Dockerfile",
    "docker/compose.yaml",
    "docker/kuberay-cluster.yaml",
    "docker/kuberay-job.yaml",
    "docker/start-flow-worker",
    "docker/example.env",
)
DOCS = (
    "README.md",
    *("docs/running.md", "docs/places.md", "docs/housekeeping.md", "docs/prefect.md", "docs/mlflow.md", "docs/contributing.md"),
    "docs/tables.md",
    *("docs/vocabulary.md", "docs/decisions/0001-one-roof.md", "docs/tutorials/first-run.md", "docs/tutorials/cluster.md"),
)

COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(re.findall(r"(?m)^([^=\s]+)==(\S+)$", (ROOT / "requirements.lock").read_text()))

PROGRAMS = {command.split()[0] for command in COMMANDS}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (INSTRUCTION, rest), continued lines joined."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def said(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def dockerfile_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in said("ENV") for pair in shlex.split(rest))


def command_lines() -> Iterator[list[str]]:
    """Every command line in the container files and in the code blocks of the docs, as words."""
    for service in SERVICES.values():
        yield service.get("command", [])
    for rest in said("CMD"):
        for word in json.loads(rest):
            yield shlex.split(word)
    texts = [(DOCKER / "start-flow-worker").read_text()]
    texts += re.findall(r"(?ms)^```sh\n(.*?)^```", "\n".join((ROOT / name).read_text() for name in DOCS))
    for line in "\n".join(texts).splitlines():
        yield shlex.split(line, comments=True)


def our_commands() -> list[list[str]]:
    """The parts of those lines that start a program of ours: at the beginning, or after one of these words."""
    found = []
    for words in command_lines():
        begins = [
            not before or before in ("exec", "&&", "||", "flow-worker") or bool(re.match("[A-Z_]+=", before))
            for before in ("", *words[:-1])
        ]
        for start in [index for index, word in enumerate(words) if word in PROGRAMS and begins[index]]:
            end = next((i for i in range(start, len(words)) if words[i] in ("&&", "||", "|", ">")), len(words))
            found.append(words[start:end])
    return found


def test_docker_is_no_package() -> None:
    assert not (DOCKER / "__init__.py").exists()  # it would shadow the Docker SDK that Prefect imports


def test_services_are_built_from_targets_of_the_dockerfile() -> None:
    targets = {rest.split(" AS ")[1] for rest in said("FROM")}
    assert targets == {"base", "flow-worker", "ray-worker"}
    built = {name: service["build"] for name, service in SERVICES.items() if "build" in service}
    assert built.keys() == {"bucket", "prefect", "mlflow", "ray-head", "ray-worker", "flow-worker"}
    for build in built.values():
        assert (DOCKER / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()
        assert build["target"] in targets
    assert all(SERVICES[name]["image"] == f"autosparse-{build['target']}" for name, build in built.items())


def test_copied_sources_exist_and_are_all_that_reaches_the_build() -> None:
    copied = [source for rest in said("COPY") for source in rest.split()[:-1]]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    allowed = re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text())
    assert sorted(copied) == sorted(allowed)
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_install_step_is_the_script_of_make() -> None:
    steps = [rest for rest in said("RUN") if ".ci/install" in rest]
    dependencies, ours = steps  # a change of code repeats the second alone
    assert all(step.endswith(".ci/install") for step in steps)
    assert "ONLY=dependencies" in dependencies and dependencies.replace(" ONLY=dependencies", "") == ours
    assert ".ci/install" in (ROOT / "Makefile").read_text()
    assert not re.search(r"\bpip3? install\b", "\n".join(said("RUN")))


def test_what_the_image_installs_is_locked() -> None:
    extras = re.findall(r"EXTRAS=(\S+)", " ".join(said("RUN")))[0].split(",")
    assert extras == ["pipeline", "postgres"]  # no test tools
    wanted = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    names = [re.split(r"[\[<>=!~ ]", line)[0] for line in wanted]
    assert [name for name in names if name.lower() not in {locked.lower() for locked in LOCK}] == []


def test_the_image_runs_without_rights_and_holds_no_secret() -> None:
    users = {rest.split("--uid ")[1].split()[0] for rest in said("RUN") if "useradd" in rest}
    assert said("USER") == [*users]
    assert said("ENTRYPOINT") == ['["tini", "--"]']
    assert not re.search(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", " ".join(said("ARG") + said("ENV")))


def test_the_image_sets_what_autosparse_sets_for_itself() -> None:
    assert settings.ENVIRONMENT.items() <= dockerfile_environment().items()


@pytest.mark.parametrize("name", [*CONTAINER_FILES, *DOCS])
def test_every_path_it_names_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    made = ("docker/.env", "flows/x.py")  # by the reader, and as an example of what not to do
    pattern = r"(?<![\w./=-])(?:\.ci|docker|docs|flows|tasks|models|storage|tests)/[\w./-]*\w"
    assert [path for path in re.findall(pattern, text) if path not in made and not (ROOT / path).exists()] == []
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    links = [link for link in links if "reference/" not in link]  # pages made from the code: tests/architecture/test_site.py
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_mounted_files_and_started_scripts_exist() -> None:
    mounts = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith(".")} == set(COMPOSE["volumes"])
    assert all((DOCKER / mount).is_file() for mount in mounts if mount.startswith("."))
    scripts = [json.loads(rest)[0] for rest in said("CMD") if "/" in json.loads(rest)[0]]
    assert scripts == ["docker/start-flow-worker"]
    assert os.access(ROOT / scripts[0], os.X_OK)


def test_a_flow_worker_prepares_the_server_as_up_does() -> None:
    lines = (DOCKER / "start-flow-worker").read_text().splitlines()
    setup, worker = (
        next(number for number, line in enumerate(lines) if line.startswith(begin)) for begin in ("python -m", "exec prefect worker")
    )
    assert setup < worker
    module = importlib.import_module(lines[setup].removeprefix("python -m "))
    assert module.main.__module__ == "autosparse.tasks.services.prefect_setup"
    assert "prefect_setup.prepare(" in (ROOT / "tasks/services/up_down.py").read_text()


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_started_programs_come_from_the_lock(program: str) -> None:
    owners = {found.dist.name for found in entry_points(group="console_scripts", name=program) if found.dist}
    assert owners
    assert owners <= {PROJECT["name"], *LOCK}


def test_every_command_is_known_and_has_its_options(helps: dict[str, str]) -> None:
    unknown, used = [], set()
    for words in our_commands():
        command = next((known for known in COMMANDS if words[: len(known.split())] == known.split()), None)
        options = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        if command is None or not all(re.search(rf"(?<![\w-]){option}(?![\w-])", helps[command]) for option in options):
            unknown.append(shlex.join(words))
        used.add(command)
    assert unknown == []
    assert used == {*COMMANDS}


def test_ports_are_published_on_loopback_only() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {
        "s3": ["127.0.0.1:7070:7070"],
        "prefect": ["127.0.0.1:4200:4200"],
        "mlflow": ["127.0.0.1:5000:5000"],
        "ray-head": ["127.0.0.1:8265:8265"],
    }


def test_passwords_are_required_and_come_from_the_example_file() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?set it in docker/\.env\}", text))
    example = dict(line.split("=") for line in (DOCKER / "example.env").read_text().splitlines() if not line.startswith("#"))
    assert example == dict.fromkeys(required, "")
    assert set(re.findall(r"\$\{(\w+)", text)) == required | {"TORCH_INDEX"}
    assert not re.search(r"(?m)(PASSWORD|SECRET\w*|TOKEN|ACCESS_KEY\w*): (?!\$\{)", text)


def test_compose_builds_the_same_torch_as_the_dockerfile() -> None:
    (default,) = [rest.removeprefix("TORCH_INDEX=") for rest in said("ARG") if rest.startswith("TORCH_INDEX=")]
    assert {service["build"]["args"]["TORCH_INDEX"] for service in SERVICES.values() if "build" in service} == {
        f"${{TORCH_INDEX-{default}}}"
    }


def test_foreign_images_are_pinned() -> None:
    images = {name: service["image"] for name, service in SERVICES.items() if "build" not in service}
    assert images.keys() == {"postgres", "s3"}
    assert all(re.search(r":v?\d+\.\d+[\w.-]*$", image) for image in images.values())


def test_services_wait_for_services_that_exist() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}"
            if how["condition"] == "service_healthy":
                target = SERVICES[other].get("build", {}).get("target")
                assert "test" in SERVICES[other].get("healthcheck", {}) or target in ("flow-worker", "ray-worker")


def test_mlflow_answers_to_the_names_it_is_called_by() -> None:
    (allowed,) = [word for word in SERVICES["mlflow"]["command"] if word.startswith("--allowed-hosts=")]
    assert SERVICES["flow-worker"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert {"mlflow:5000", "127.0.0.1:5000"} <= set(allowed.removeprefix("--allowed-hosts=").split(","))


def test_settings_are_known_to_autosparse() -> None:
    source = "".join(
        (ROOT / name).read_text()
        for name in (
            "tasks/settings.py",
            "tasks/limits.py",
            "tasks/services/up_down.py",
            "tasks/services/exposure.py",
            "tasks/services/prefect_setup.py",
            "storage/reports.py",
        )
    )
    known = set(re.findall(r'"((?:AUTOSPARSE|MLFLOW|PREFECT)_\w+)"', source))
    pattern = r"\b(?:AUTOSPARSE|MLFLOW|PREFECT)_[A-Z_]+\b"
    assert set(re.findall(pattern, (ROOT / "docs/running.md").read_text())) <= known
    given = SERVICES["flow-worker"]["environment"].keys()
    assert {name for name in given if re.fullmatch(pattern, name)} <= known
    assert {"AUTOSPARSE_STORAGE", "AUTOSPARSE_RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"} <= given


def test_settings_of_the_servers_are_known_to_them() -> None:
    given = set(dockerfile_environment())
    for name in ("prefect", "mlflow"):
        given |= SERVICES[name]["environment"].keys()
    for_prefect = {name for name in given if name.startswith("PREFECT_")}
    assert for_prefect <= set(prefect_variables(prefect.settings.Settings))
    package = Path(importlib.util.find_spec("mlflow").origin).parent  # type: ignore[union-attr, arg-type]
    source = (package / "environment_variables.py").read_text() + (package / "cli" / "__init__.py").read_text()
    source += "".join(path.read_text() for path in (package / "telemetry").glob("*.py"))
    assert [name for name in given if name.startswith("MLFLOW_") and f'"{name}"' not in source] == []


def prefect_variables(model: type[BaseSettings]) -> Iterator[str]:
    """Every environment variable that a settings model of Prefect reads, those of its parts included."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
            yield from prefect_variables(field.annotation)
        yield f"{model.model_config.get('env_prefix', '')}{name}".upper()
        if isinstance(field.validation_alias, AliasChoices):
            yield from (str(choice).upper() for choice in field.validation_alias.choices)
