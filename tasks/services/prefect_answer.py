"""Whether a run can begin with the Prefect server that it was given: asked through Prefect's own client, with its key and certificates."""

import os
import time
from typing import Any

from autosparse.models.errors import ServiceError, without_password
from autosparse.tasks.proxies import asked_through
from autosparse.tasks.server_addresses import PREFECT

KEY, AUTH_STRING = "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"
HEALTH_SECONDS = 10  # a server that starts is waited for
ANSWER_SECONDS = 5
REFUSED = (401, 403)


def check_prefect(api: str | None, *, ours: bool = False, seconds: float = HEALTH_SECONDS) -> None:
    """Raise ServiceError, one line that says what is missing, unless the server at `api` answers within so many seconds.

    None is the embedded server, which is not asked; `ours`: `autosparse up` started it.
    """
    if api is None:
        return
    start = time.monotonic()
    while (failure := _failure(api)) is not None:
        _raise_final(api, failure)
        waited = time.monotonic() - start
        if waited > seconds - ANSWER_SECONDS:
            hint = "`autosparse up` starts it again" if ours else f"{PREFECT} says where it is; unset it for an embedded server"
            raise ServiceError(
                f"prefect: {api} did not answer for {waited:.0f} s ({_line(failure)}){asked_through(api)}; {hint}"
            ) from failure
        time.sleep(0.5)


def _failure(api: str) -> Exception | None:
    """What came of a small question that servers and Prefect Cloud answer to whoever may come in."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        client = SyncPrefectClient(
            api,
            api_key=PREFECT_API_KEY.value(),
            auth_string=PREFECT_API_AUTH_STRING.value(),
            httpx_settings={"timeout": ANSWER_SECONDS, "follow_redirects": True},
        )
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # a gateway that says 503 would be asked for minutes
            client._client.post("/flows/filter", json={"limit": 1}).json()
    except Exception as error:  # of httpx, of Prefect, of TLS, of JSON
        return error
    return None


def _raise_final(api: str, failure: Exception) -> None:
    """Another try would not change these."""
    answer: Any = getattr(failure, "response", None)
    if answer is not None and answer.status_code in REFUSED:
        there = [name for name in (KEY, AUTH_STRING) if os.environ.get(name)]
        hint = f"it does not take {' and '.join(there)}" if there else f"set {KEY} (Prefect Cloud), or {AUTH_STRING}=name:password"
        raise ServiceError(f"prefect: {api} lets nobody in ({answer.status_code}); {hint}", {"mend": hint}) from failure
    if (answer is not None and answer.status_code < 500) or isinstance(failure, ValueError):
        code = f" ({answer.status_code})" if answer is not None else ""
        hint = f"{PREFECT} is the address of the API: http://host:4200/api, or https://api.prefect.cloud/api/accounts/ID/workspaces/ID"
        raise ServiceError(f"prefect: {api} answers, but not as Prefect does{code}; {hint}", {"mend": hint}) from failure
    if "CERTIFICATE_VERIFY_FAILED" in str(failure):
        hint = "PREFECT_API_SSL_CERT_FILE=/path/of/its/certificate.pem (or PREFECT_API_TLS_INSECURE_SKIP_VERIFY=true)"
        raise ServiceError(f"prefect: {api} has a certificate that nobody here knows; {hint}", {"mend": hint}) from failure


def _line(error: Exception) -> str:
    return without_password((str(error).splitlines() or [type(error).__name__])[0])
