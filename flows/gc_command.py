"""`autosparse gc`: what killed runs left in the storage, listed, and removed when asked for."""

import json

from rich.console import Console

from autosparse.flows.sizes import in_words
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.garbage import orphans

console = Console(soft_wrap=True)


def collect(older_than: float, delete: bool, *, as_json: bool = False) -> None:
    """Print the orphans, one a line or as JSON; remove them where `delete`. Raises SpecError for a negative age."""
    store = open_store(settings.load().storage)
    found = orphans(store, older_than)
    for orphan in found:
        if delete:
            orphan.remove(store)
        if as_json:
            continue
        said = f"{'removed' if delete else 'orphan'}  {orphan.kind:15}  {orphan.hours:.1f} h  {in_words(orphan.size):>10}  {orphan.uri}"
        console.print(said, highlight=False)
    if as_json:
        rows = [{"kind": one.kind, "uri": one.uri, "hours": round(one.hours, 3), "bytes": one.size} for one in found]
        console.print_json(json.dumps({"orphans": rows, "removed": delete}))
        return
    total = in_words(sum(orphan.size for orphan in found))
    if not found:
        console.print(f"nothing in {store.root} is an orphan and older than {older_than:g} h", highlight=False)
    elif not delete:
        console.print(f"{len(found)} in {store.root}, {total}; --delete removes them", highlight=False)
    else:
        console.print(f"freed {total}", highlight=False)
