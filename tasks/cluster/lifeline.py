"""How a driver learns that its Ray is gone."""

import socket

from autosparse.models.errors import JobError


class Lifeline:
    """A connection to a raylet on which nothing is ever said: the system ends it with the raylet.

    Ray itself does not always notice: where another Ray answers at the address of a dead one, as after `autosparse up`, a driver takes
    the one for the other and waits for ever for what was lost.
    """

    def __init__(self, raylet_socket: str, loss: str) -> None:
        """Connect to the socket file of the raylet; `loss` is what to say of its end. Raises OSError where nobody listens there."""
        self.loss = loss
        self._connection = socket.socket(socket.AF_UNIX)
        try:
            self._connection.connect(raylet_socket)
            self._connection.setblocking(False)
        except OSError:
            self._connection.close()
            raise

    def check(self) -> None:
        """Raise JobError once the raylet has ended: not a ServiceError, which a step would wait for to heal."""
        try:
            alive = bool(self._connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:  # nothing was said: it lives
            return
        except OSError:
            alive = False
        if not alive:
            raise JobError(self.loss)

    def close(self) -> None:
        """Let go; whoever still asks hears that the run was interrupted."""
        self.loss = "the run was interrupted"
        self._connection.close()
