"""Who is told when a run ends: automations of the Prefect server, which send through Apprise, whatever the flow's process does.

The address is a secret. It lies in a block of the Prefect server; names are made of its kind and of a digest of it, and nothing else of it
is shown. Prefect has no block for any address that Apprise knows; the one for Slack hands whatever it holds to Apprise.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from apprise import Apprise
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from autosparse.models.errors import ServiceError, not_allowed, unknown_name

logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it says whole addresses

FLOW = "autosparse"
STATES = {"failed": "Failed", "completed": "Completed", "crashed": "Crashed", "cancelled": "Cancelled"}
PREFIX = "autosparse notify "  # of automations
BLOCK, SLUG = "autosparse-notify-", "slack-webhook"
KNOWN = (
    "an address that Apprise knows: https://hooks.slack.com/..., mailto://..., or any https:// webhook (https://github.com/caronc/apprise)"
)
SUBJECT = "autosparse: {{ flow_run.name }} {{ flow_run.state.name }}"
BODY = """Run {{ flow_run.name }} is {{ flow_run.state.name }}.
{{ flow_run.state.message or "" }}
{{ flow_run|ui_url or "" }}"""


@dataclass(frozen=True, kw_only=True)
class Notification:
    """Somebody who is told: a name that holds no secret, and the states of a run that he hears of."""

    name: str
    states: tuple[str, ...]


class Notifications:
    """Those of one Prefect server."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client

    def all(self) -> list[Notification]:
        """Who is told of what."""
        found = [_read(one) for one in self._automations()]
        return sorted(found, key=lambda one: one.name)

    def tell(self, url: str, states: tuple[str, ...]) -> tuple[str, bool]:
        """Have `url` told of these states from now on; its name, and whether that changed anything. Raises SpecError."""
        address = apprise_address(url)
        check_states(states)
        name = name_of(address)
        saved: Any = self._block(name) or SlackWebhook(url=SecretStr(address)).save(BLOCK + name)
        wanted = _automation(name, states, saved)
        [there] = self._automations(name) or [None]
        if there is None:
            self.client.create_automation(wanted)
        elif _read(there).states == tuple(sorted(states)):
            return name, False
        else:
            self.client.update_automation(there.id, wanted)
        return name, True

    def remove(self, url_or_name: str) -> str:
        """Tell this address no more, or the one that `all` calls so; its name. Raises SpecError where it is not told."""
        known = [one.name for one in self.all()]
        name = url_or_name if url_or_name in known else _name_or_none(url_or_name)
        if name not in known:
            raise not_allowed("notify", name, f"one that is told: {', '.join(known) or 'nobody is'}")
        for automation in self._automations(name):
            self.client.delete_automation(automation.id)
        if block := self._block(name):
            self.client.delete_block_document(block)
        return name

    def _automations(self, name: str | None = None) -> list[Automation]:
        found = self.client.read_automations_by_name(PREFIX + name) if name else self.client.read_automations()
        return [one for one in found if one.name.startswith(PREFIX)]

    def _block(self, name: str) -> UUID | None:
        try:
            return self.client.read_block_document_by_name(BLOCK + name, SLUG).id
        except ObjectNotFound:
            return None


@contextmanager
def notifications(api: str) -> Iterator[Notifications]:
    """Those of the server at `api`. Raises ServiceError where it does not answer as one."""
    import httpx

    try:
        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            yield Notifications(client)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise ServiceError(f"prefect: {api} did not take it ({type(error).__name__}); `autosparse up` starts a server") from error


def try_out(url: str) -> str:
    """Send one message from here, and return the name. Raises SpecError, and ServiceError when it does not arrive."""
    address = apprise_address(url)
    name = name_of(address)
    sender = Apprise()
    sender.add(address)
    if not sender.notify(body="This is what a message about the end of a run looks like.", title="autosparse: a test"):
        raise ServiceError(f"notify: {name} did not take the message")
    return name


def apprise_address(url: str) -> str:
    """The address as Apprise takes it: a webhook of nobody it knows gets JSON. Raises SpecError, which shows the kind alone."""
    kind = urlsplit(url).scheme.lower()
    url = kind + url[len(kind) :]
    webhook = ["json" + url.removeprefix("http")] if kind in ("http", "https") and urlsplit(url).netloc else []
    for address in (url, *webhook):
        if Apprise.instantiate(address, suppress_exceptions=True):
            return address
    raise not_allowed("URL", f"{kind}://..." if kind else "(an address without ://)", KNOWN)


def check_states(states: tuple[str, ...]) -> None:
    """Raise SpecError for a state that no run ends in, and for none at all."""
    if not states:
        raise not_allowed("--on", "", ", ".join(STATES))
    for state in states:
        if state not in STATES:
            raise unknown_name("--on", state, STATES)


def name_of(address: str) -> str:
    """What Apprise calls its kind, and eight digits of its digest."""
    kind = type(Apprise.instantiate(address)).__name__.removeprefix("Notify").lower()
    return f"{kind}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def _name_or_none(url: str) -> str | None:
    return name_of(apprise_address(url)) if "://" in url else url


def _automation(name: str, states: tuple[str, ...], block: UUID) -> AutomationCore:
    trigger = EventTrigger(
        expect={f"prefect.flow-run.{STATES[state]}" for state in states},
        match={"prefect.resource.id": "prefect.flow-run.*"},  # type: ignore[arg-type]
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOW},  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    action = SendNotification(block_document_id=block, subject=SUBJECT, body=BODY)
    return AutomationCore(name=PREFIX + name, description="made by `autosparse notify`", trigger=trigger, actions=[action])


def _read(automation: Automation) -> Notification:
    trigger = automation.trigger
    events = trigger.expect if isinstance(trigger, EventTrigger) else set()
    states = sorted(state for state, name in STATES.items() if f"prefect.flow-run.{name}" in events)
    return Notification(name=automation.name.removeprefix(PREFIX), states=tuple(states))
