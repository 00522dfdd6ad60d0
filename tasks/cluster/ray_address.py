"""Whether anything listens where a Ray is said to be: Ray itself tries for a minute before it says no."""

import socket

from autosparse.models.errors import ServiceError, not_allowed

VARIABLE = "AUTOSPARSE_RAY_ADDRESS"
SECONDS = 5.0


def check_ray(address: str | None, *, ours: bool = False, seconds: float = SECONDS) -> None:
    """Raise ServiceError where nobody listens at host:port, SpecError for what is no address.

    None and `auto` are a Ray of this machine, which is not looked for; `ours`: `autosparse up` started it.
    """
    if address in (None, "auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise not_allowed(VARIABLE, address, "host:6379, [::1]:6379 or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError as error:
        hint = "`autosparse up` starts it again" if ours else f"{VARIABLE} says where it is; unset it for a local Ray"
        raise ServiceError(f"ray: nobody listens at {address} ({error}); {hint}", {"mend": hint}) from error
