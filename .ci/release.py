"""What a release carries about its dependencies: docs/licences.md and an SBOM (CycloneDX 1.6), out of the lock and the installed packages.

usage: release.py docs/licences.md | release.py FILE.cdx.json
"""

import json
import re
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]

# One name for the many spellings of a licence. What is not here is refused until somebody has looked at it.
KNOWN = {
    "MIT": ("MIT", "MIT License", "MIT-0", "DFSG approved; MIT License", "MIT-CMU"),
    "BSD": ("BSD", "BSD License", "3-Clause BSD License", "BSD-2-Clause", "BSD-3-Clause"),
    "Apache-2.0": ("Apache-2.0", "Apache Software License", "Apache 2.0", "Apache 2.0 License"),
    "ISC": ("ISC", "ISC License (ISCL)"),
    "PSF-2.0": ("PSF-2.0", "Python Software Foundation License"),
    "MPL-2.0": ("MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"),
}
COMPATIBLE = re.compile(
    r"MIT|0BSD|BSD-[23]-Clause|Apache-2\.0( WITH LLVM-exception)?|PSF-2\.0|CNRI-Python|Zlib|CC0-1\.0|BSL-1\.0|MPL-2\.0|ISC"
)
READ = {  # in the package's own licence file, because its metadata do not say it, or it is not installed everywhere
    "certifi": "MPL-2.0",
    "huey": "MIT",
    "psycopg2-binary": "LGPL-3.0 with exceptions",  # of the extra `postgres`, linked dynamically
    "skops": "MIT",
    "tenacity": "Apache-2.0",
    "text-unidecode": "Artistic-1.0 or GPL-2.0-or-later",  # taken under the first
    "whenever": "MIT",
}


def locked() -> list[tuple[str, str]]:
    """Every package of the lock with its version."""
    return [(name, version) for name, version in re.findall(r"(?m)^([^=\s]+)==(\S+)$", (ROOT / "requirements.lock").read_text())]


def licence(name: str) -> str:
    """The licence of a package by one of the names above, or its SPDX expression. Raises KeyError for one that nobody has looked at."""
    if name.lower() in READ:
        return READ[name.lower()]
    try:
        found = metadata(name)
    except PackageNotFoundError:
        raise KeyError(f"{name}: not installed here, and not in READ") from None
    classifiers = [line.split(" :: ")[-1] for line in found.get_all("Classifier") or [] if line.startswith("License ::")]
    said = found.get("License-Expression") or "; ".join(classifiers) or (found.get("License") or "").split("\n")[0]
    for known, spellings in KNOWN.items():
        if said in spellings:
            return known
    parts = re.split(r" (?:AND|OR) |; ", said.replace("(", "").replace(")", ""))
    if parts and all(COMPATIBLE.fullmatch(part) or any(part in spellings for spellings in KNOWN.values()) for part in parts):
        return said
    raise KeyError(f"{name}: {said!r} is not known to be compatible")


def page() -> str:
    """docs/licences.md."""
    by_licence: dict[str, list[str]] = defaultdict(list)
    for name, _ in locked():
        by_licence[licence(name)].append(name)
    rows = [f"| {one} | {', '.join(names)} |" for one, names in sorted(by_licence.items(), key=lambda pair: (-len(pair[1]), pair[0]))]
    head = (
        "# Licences of dependencies\n\nautosparse is under [Apache-2.0](../LICENSE). Every package of the lock file, extras and test tools "
        "included, with its licence; all may be used together with it. Written by `.ci/release.py`; one that nobody has looked at "
        "fails a test.\n\n| licence | packages |\n|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def bill() -> str:
    """The software bill of materials as CycloneDX 1.6."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower()}@{version}",
            "licenses": [{"license": {"name": licence(name)}}],
        }
        for name, version in locked()
    ]
    text = (ROOT / "autosparse/__init__.py").read_text()
    (version,) = re.findall(r'__version__ = "(.*)"', text)
    of = {"component": {"type": "library", "name": "autosparse", "version": version, "purl": f"pkg:pypi/autosparse@{version}"}}
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": of, "components": components}, indent=1)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(bill() if sys.argv[1].endswith(".json") else page())
