"""The process of a peer: another package, in an interpreter and environment of its own.

Its script reads one JSON request per line and answers each with a line that begins with
``ANSWER``.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["PeerProcess"]


class PeerProcess:
    """A running peer.

    Parameters
    ----------
    command : list
        Interpreter, script and its arguments.
    name : str
        Of the peer, for messages and for the file of what it says beside its answers.
    """

    def __init__(self, command: list[Any], name: str) -> None:
        self.name = name
        self.log = Path(tempfile.gettempdir()) / f"{name}_worker.log"
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        for line in stdout:
            if line.startswith("ANSWER "):
                return dict(json.loads(line.removeprefix("ANSWER ")))
        raise RuntimeError(f"{self.name} gave no answer, see {self.log}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
