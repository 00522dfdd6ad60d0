"""Whether a run can begin with the MLflow that it was given: asked through MLflow's own client, with its token, user and certificates.

The question is the one that a run asks first, for its experiment: hosted servers have no `/health`.
"""

import os
import re
import time
from collections.abc import Iterator
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from autosparse.models.errors import ConflictError, ServiceError, without_password
from autosparse.tasks.proxies import asked_through
from autosparse.tasks.server_addresses import check_mlflow_address

EXPERIMENT = "autosparse"
QUESTION = "/api/2.0/mlflow/experiments/get-by-name"
HEALTH_SECONDS = 15  # a server that starts is waited for
ANSWER_SECONDS = 5
STARTING = (429, 502, 503, 504)  # the proxy before it answers
REFUSED = (401, 403)
USER, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
WHO = re.compile(r"^<?(\S*\.)?HTTPS?Connection.*?[)>]: (Failed to establish a new connection: )?")
WRAPPED = 4  # at most: ProxyError(MaxRetryError(ProxyError(NewConnectionError)))
CERTIFICATE, INSECURE = "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS"


def check_experiment(uri: str, *, seconds: float = HEALTH_SECONDS) -> None:
    """Raise ConflictError where the experiment was deleted, and what `check_reachable` raises."""
    check_reachable(uri, seconds=seconds)
    try:
        found = MlflowClient(uri).get_experiment_by_name(EXPERIMENT)
    except Exception as error:  # of SQLAlchemy, of a driver that is not installed, of Databricks' SDK
        raise ServiceError(f"mlflow: {without_password(uri)} cannot be used ({_line(error)})") from error
    if found and found.lifecycle_stage == "deleted":
        mend = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        where = f"MLFLOW_TRACKING_URI={without_password(uri)} "
        line = f"mlflow: the experiment {EXPERIMENT!r} was deleted at {without_password(uri)}; {where}{mend}"
        raise ConflictError(line, {"mend": f"{where}{mend}"})


def check_reachable(uri: str, *, seconds: float = HEALTH_SECONDS) -> None:
    """Raise ServiceError, one line that says what is missing, where an MLflow server does not answer within so many seconds or lets
    nobody in, and SpecError for an address that is none. A database is not asked."""
    check_mlflow_address(uri)
    if not uri.startswith("http"):
        return
    for answer in _answers(uri, seconds):
        if answer.status_code not in STARTING:
            break
    if answer.status_code in REFUSED:
        raise _refused(uri, answer)
    if not (answer.status_code < 500 and _is_json(answer)):
        kind = answer.headers.get("Content-Type", "no type").partition(";")[0]
        raise ServiceError(
            f"mlflow: {uri} answers {answer.status_code} ({kind}) to {QUESTION}, as no MLflow does; "
            "MLFLOW_TRACKING_URI is its address without the path of a page, behind a proxy with the prefix"
        )


def _answers(uri: str, seconds: float) -> Iterator[Any]:
    """Its answers until time is over; at least one, or ServiceError."""
    start = time.monotonic()
    while True:
        failure = None
        try:
            yield http_request(
                get_default_host_creds(uri),
                QUESTION,
                "GET",
                params={"experiment_name": EXPERIMENT},
                timeout=ANSWER_SECONDS,
                max_retries=0,
                raise_on_status=False,
            )
        except MlflowException as error:
            failure = error
            hint = _hint(uri, error)
            if hint:  # another try would not change it
                raise ServiceError(f"mlflow: {uri} {hint}") from error
        waited = time.monotonic() - start
        if waited > seconds - ANSWER_SECONDS:
            if failure is None:
                return
            raise ServiceError(f"mlflow: {uri} did not answer for {waited:.0f} s ({_reason(failure)}){asked_through(uri)}") from failure
        time.sleep(0.5)


def _hint(uri: str, error: MlflowException) -> str | None:
    """What to set, where a failure is one of settings."""
    said = f"{error} {error.__context__}"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        mend = f"{CERTIFICATE}=/path/of/its/certificate.pem (or {INSECURE}=true)"
        return f"has a certificate that nobody here knows ({_reason(error)}); {mend}"
    if "TLS CA certificate bundle" in said or "SSLError" in said or "When 'ignore_tls_verification' is true" in said:
        return f"cannot be asked ({_reason(error)}); {CERTIFICATE}, {INSECURE} and REQUESTS_CA_BUNDLE say which certificates hold"
    return None


def _refused(uri: str, answer: Any) -> ServiceError:
    if "Invalid Host header" in answer.text:
        return ServiceError(
            f"mlflow: {uri} does not answer under this name ({answer.status_code} Invalid Host header); start it with --allowed-hosts"
        )
    there = {name: bool(os.environ.get(name)) for name in (TOKEN, USER, PASSWORD)}
    if not any(there.values()):
        hint = f"set {TOKEN}, or {USER} and {PASSWORD}"
    elif not there[TOKEN] and there[USER] != there[PASSWORD]:
        hint = f"{PASSWORD if there[USER] else USER} is missing"
    elif there[USER] and there[PASSWORD]:
        hint = f"it does not know {USER} with {PASSWORD}" + (f"; {TOKEN} is not sent beside them" if there[TOKEN] else "")
    else:
        hint = f"it does not take {TOKEN}"
    if answer.status_code == 403 and any(there.values()):
        hint += ", or they may not read experiments"
    return ServiceError(f"mlflow: {uri} lets nobody in ({answer.status_code}); {hint}", {"mend": hint})


def _is_json(answer: Any) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def _reason(error: BaseException) -> str:
    """The innermost of what requests and urllib3 wrap, without the address of an object: `[Errno 111] Connection refused`."""
    inner = error.__context__ or error
    for _ in range(WRAPPED):
        below = [one for one in (getattr(inner, "reason", None), *inner.args) if isinstance(one, BaseException)]
        inner = below[0] if below else inner
    return WHO.sub("", _line(inner))


def _line(error: BaseException) -> str:
    return without_password((str(error).splitlines() or [type(error).__name__])[0])
