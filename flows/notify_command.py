"""`autosparse notify`: who is told when a run ends."""

import json
import sys

from autosparse.models.errors import not_allowed
from autosparse.tasks import settings as settings_module

STDIN = "-"


def notify_of_runs(url: str | None, on: str, *, remove: bool, listed: bool, test: bool, as_json: bool = False) -> str:
    """Set up, list, try out or remove a notification, and what to say of it. Raises SpecError, ServiceError."""
    settings = settings_module.load()
    settings_module.export(settings)
    if url == STDIN:
        url = sys.stdin.readline().strip()
    if sum((remove, listed, test)) > 1:
        raise not_allowed("notify", "several of --remove, --list and --test", "one of them")
    if as_json and not listed:
        raise not_allowed("--json", "true", "beside --list")
    if not (url or listed):
        raise not_allowed("URL", "", "an address, - for one on the standard input, or --list")
    if not (test or settings.prefect_api_url):
        raise not_allowed("PREFECT_API_URL", "", "the address of a Prefect server that stays; `autosparse up` starts one")
    from autosparse.tasks.services.notifications import notifications, try_out

    if test:
        return f"sent to {try_out(url or '')}"
    with notifications(settings.prefect_api_url or "") as there:
        if listed and as_json:
            return json.dumps([{"name": one.name, "on": list(one.states)} for one in there.all()], indent=2)
        if listed:
            return "\n".join(f"{one.name}  {','.join(one.states)}" for one in there.all()) or "nobody is told"
        if remove:
            return f"{there.remove(url or '')} is told no more"
        states = tuple(sorted({part.strip() for part in on.split(",") if part.strip()}))
        name, changed = there.tell(url or "", states)
        return f"{name} is told of runs that end {', '.join(states)}" + ("" if changed else " (as before)")
