"""How long S3 is waited for: botocore's adaptive backoff with jitter, ended by time instead of by a count, and one warning a minute."""

import logging
import random
import time
from typing import Any
from urllib.parse import urlsplit

import s3fs
from botocore.exceptions import ConnectionError as NoConnection
from botocore.exceptions import HTTPClientError, ReadTimeoutError
from fsspec.asyn import sync_wrapper

PATIENCE_S = 40  # for a server that is busy or keeps still
UNREACHABLE_S = 8  # for one that nobody can connect to, that breaks connections off, or whose address is wrong
PAUSE_S = 2  # the longest between two tries to reach it: botocore's grow to 20 s, far beyond the end
ATTEMPTS = 100  # botocore's own limit, which is not to be reached
WARNING_S = 60
BUSY = (408, 429, 500, 502, 503, 504)
SINCE = "autosparse-failing-since"

log = logging.getLogger(__name__)
_warned: list[float] = []  # when this process last did


class PatientS3(s3fs.S3FileSystem):
    """s3fs with that patience, wherever it is unpickled. The wait for a busy server under way at the end, at most 20 s, is still waited."""

    retries = 2  # of s3fs, each with all of botocore's: who breaks off within a body is asked again

    async def set_session(self, refresh: bool = False, kwargs: Any = None) -> Any:
        """The client, made on first use."""
        client = await super().set_session(refresh, kwargs or {})
        client.meta.events.register_first("needs-retry.s3", end_retries, unique_id=end_retries.__name__)
        return client

    _connect = set_session
    connect = sync_wrapper(set_session)


def end_retries(*, response: Any, caught_exception: Exception | None, request_dict: dict[str, Any], **_: Any) -> bool | float | None:
    """A handler of botocore's `needs-retry` event: False ends the retries of a request, None leaves the decision to botocore.

    A number is the pause before the next try, in seconds.
    """
    if caught_exception is None and response[0].status_code not in BUSY:
        return None
    now = time.monotonic()
    failing = now - request_dict["context"].setdefault(SINCE, now)
    reason = type(caught_exception).__name__ if caught_exception else response[1].get("Error", {}).get("Code", "")
    _warn(now, f"{request_dict['method']} {urlsplit(request_dict['url']).path}", reason, failing)  # an address may hold a password
    busy = caught_exception is None or isinstance(caught_exception, ReadTimeoutError)
    left = (PATIENCE_S if busy else UNREACHABLE_S) - failing
    if left <= 0:
        return False
    if busy or not isinstance(caught_exception, (NoConnection, HTTPClientError)):
        return None
    return min(left, random.uniform(0, PAUSE_S))


def _warn(now: float, request: str, reason: str, failing: float) -> None:
    if _warned and now - _warned[0] < WARNING_S:
        return
    _warned[:] = [now]
    log.warning("S3: %s failed (%s) and is tried again, %.0f s so far", request, reason, failing)
