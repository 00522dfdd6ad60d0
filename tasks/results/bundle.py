"""Everything that is needed to check a table, in one file: specs, reports, digests of data and masks, versions, the table itself.

Its files lie as in the storage, so that the same code makes the table again. Absolute paths and addresses are left out: they are of the
machine, and may name people or hold secrets; of the place of data its last part stays, which tables show. Nothing is signed: a bundle
that was changed on purpose, its digests too, can be told from the storage alone.
"""

import csv
import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autosparse.models.errors import AutosparseError, DataError
from autosparse.models.specs.fields import fingerprint
from autosparse.storage import paths, reports
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store, dump_json
from autosparse.tasks.results.run_view import record_of, spec_of_run
from autosparse.tasks.results.table import ResultTable, result_table
from autosparse.tasks.results.table_text import csv_text

MANIFEST, TABLE, ROWS = "MANIFEST.json", "table.json", "table.csv"
FORMAT = 1
LARGEST = 2**30  # bytes of all files
NEAR = 1e-9  # relative: the last bits of a p-value are those of a version of SciPy
MACHINE = re.compile(r"(?<![\w.)\]}-])(?:[A-Za-z][A-Za-z0-9+.-]*:/{2,}|~?/(?=[^\s/])|[A-Za-z]:\\)[^\s'\",;)]*")
LEFT_OUT = "(left out)"
EARLY = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file knows: the same runs make the same bytes


def bundle(store: Store, runs: Sequence[str], over: Sequence[str] = (), against: str | None = None) -> bytes:
    """The bundle of the table of these runs. Raises what `result_table` raises."""
    result_table(store, runs, over, against)  # refused before anything is read
    files = {name: content for run in dict.fromkeys(runs) for name, content in _files(store, run)}
    with TemporaryDirectory() as folder:
        found = result_table(_unpacked(folder, files), runs, over, against)
    files |= {TABLE: dump_json(found.to_plain()), ROWS: csv_text(found).encode()}
    digests = {name: _sha256(content) for name, content in sorted(files.items())}
    asked = {"runs": list(found.runs), "over": list(over), "against": against}
    manifest = dump_json({"format": FORMAT, **asked, "made_by": reports.provenance(), "files": digests})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {MANIFEST: manifest, **dict(sorted(files.items()))}.items():
            archive.writestr(zipfile.ZipInfo(name, EARLY), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def differences_in(content: bytes, source: str) -> list[str]:
    """What of a bundle is not as its manifest and its reports have it, a line each; empty where all of it is.

    Raises DataError for what is no bundle.
    """
    files, found = _read(content, source)
    try:
        manifest = json.loads(files.pop(MANIFEST))
        digests, asked = manifest["files"], (manifest["runs"], manifest["over"], manifest["against"])
        known = manifest["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source}: no results bundle: {MANIFEST} is missing or damaged ({type(error).__name__})") from error
    if known != FORMAT:
        raise DataError(f"{source}: format {known!r} is not allowed; allowed: {FORMAT}")
    found += [f"{name}: missing" for name in digests if name not in files]
    found += [f"{name}: not in the manifest" for name in files if name not in digests]
    for name in sorted(files.keys() & digests.keys()):
        if (now := _sha256(files[name])) != digests[name]:
            found.append(f"{name}: changed, SHA-256 {now[:12]}..., the manifest has {str(digests[name])[:12]}...")
    with TemporaryDirectory() as folder:
        try:
            found += _differences(_unpacked(folder, files), files, asked)
        except AutosparseError as error:
            found.append(f"table: cannot be made from the reports: {str(error).splitlines()[0].replace(f'{folder}/', '')}")
    return found


def without_machine(value: Any, key: str = "") -> Any:
    """JSON-like data without absolute paths and addresses; the place of data (`path`) keeps its last part."""
    if isinstance(value, dict):
        return {name: without_machine(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [without_machine(one, key) for one in value]
    if isinstance(value, str):
        return value.rstrip("/").rsplit("/", 1)[-1] if key == "path" else MACHINE.sub(LEFT_OUT, value)
    return value


def _files(store: Store, name: str) -> Iterator[tuple[str, bytes]]:
    """Spec, reports and digests of masks of a run, as they lie in a bundle."""
    run = RunPaths(name)
    yield run.spec, dump_json(without_machine(record_of(store, run)))
    for folder in (run.images, run.irp, run.features, run.scorer, run.fanout):
        for step in reports.steps(store, folder):
            if step != run.registration:
                yield paths.report(step), dump_json(without_machine(store.read_json(paths.report(step))))
    masks = [key for folder in (run.irp, run.fanout) for key in store.list(folder) if paths.is_mask(key)]
    yield run.mask_digests, dump_json({key: _sha256(store.read(key)) for key in masks})


def _read(content: bytes, source: str) -> tuple[dict[str, bytes], list[str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if (size := sum(entry.file_size for entry in entries)) > LARGEST:
                raise DataError(f"{source}: {size:,} bytes unpacked are not allowed; allowed: {LARGEST:,}")
            files = {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        raise DataError(f"{source}: no results bundle ({error})") from error
    names = [entry.filename for entry in entries]
    return files, [f"{name}: there twice" for name in sorted(files) if names.count(name) > 1]


def _unpacked(folder: str, files: Mapping[str, bytes]) -> Store:
    """The runs of a bundle as a storage. Raises DataError for a name that is no key."""
    store = open_store(str(Path(folder).resolve()))
    for name, content in files.items():
        if name.startswith(f"{paths.RUNS}/"):
            store.write(name, content)
    return store


def _differences(store: Store, files: Mapping[str, bytes], asked: tuple[list[str], list[str], str | None]) -> Iterator[str]:
    runs, over, against = asked
    for name in runs:
        spec, recorded = spec_of_run(store, name), record_of(store, RunPaths(name)).get("fingerprint")
        if (now := fingerprint(spec)) != recorded:
            yield f"{RunPaths(name).spec}: the fingerprint of the spec is {now}, recorded is {recorded}"
    table = result_table(store, runs, over, against)
    try:
        stored = json.loads(files.get(TABLE, b"{}"))
        rows = list(csv.reader(io.StringIO(files.get(ROWS, b"").decode())))
    except ValueError as error:
        yield f"{TABLE}, {ROWS}: cannot be read ({error})"
        return
    yield from _unlike(TABLE, json.loads(dump_json(table.to_plain())), stored, _labels(table))
    yield from _unlike(ROWS, list(csv.reader(io.StringIO(csv_text(table)))), rows, ["head", *_labels(table)])


def _labels(table: ResultTable) -> list[str]:
    return [f"{line.row['target']}/{line.name}" + ("" if (at := line.row["density"]) is None else f"@{at:g}") for line in table.lines]


def _unlike(where: str, now: Any, stored: Any, labels: Sequence[str]) -> Iterator[str]:
    """Every value that differs, with its place; the rows are named by their method."""
    if isinstance(now, dict) and isinstance(stored, dict):
        for name in dict.fromkeys([*now, *stored]):
            yield from _unlike(f"{where}: {name}", now.get(name), stored.get(name), labels)
    elif isinstance(now, list) and isinstance(stored, list) and len(now) == len(stored):
        named = labels if len(labels) == len(now) else [str(index) for index in range(len(now))]
        for name, one, other in zip(named, now, stored, strict=True):
            yield from _unlike(f"{where}: {name}", one, other, ())
    elif not _same(now, stored):
        yield f"{where}: {_short(now)} by the reports, {_short(stored)} in the bundle"


def _same(now: Any, stored: Any) -> bool:
    try:
        return now == stored or (now is not None and math.isclose(float(now), float(stored), rel_tol=NEAR))
    except (TypeError, ValueError):
        return False


def _short(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, list | dict) else json.dumps(value)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
