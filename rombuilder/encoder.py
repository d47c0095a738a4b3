"""Single instructions into bytes: Keystone behind a process wall, answers remembered."""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from rombuilder.errors import EncoderError

__all__ = ["Encoder", "Encoding"]

_WORKER = Path(__file__).with_name("keystone_worker.py")
_PATIENCE = 20.0
"""Seconds for one instruction before the worker counts as hung."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """An instruction's bytes; `fields` are (offset, width) of values left zero."""

    code: bytes
    fields: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Encoder:
    """Encodes templates: instructions with "{0}", "{1}" for values not yet known.

    Starts its worker process on first use and again after a crash. One instance can
    serve any number of assemblies, from any thread; a forked process gets a worker of
    its own.
    """

    worker: Path = _WORKER
    _process: "subprocess.Popen[bytes] | None" = None
    _owner: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[int, str, tuple[tuple[int, ...], ...]], Encoding | str] = field(
        default_factory=dict
    )

    def encode(
        self, mode: int, template: str, widths: tuple[tuple[int, ...], ...] = ()
    ) -> Encoding:
        """The encoding in 16- or 32-bit mode; raises `EncoderError`.

        `widths` lists for each field the widths in bytes to try, in order.
        """
        key = (mode, template, widths)
        with self._lock:
            answer = self._known.get(key)
            if answer is None:
                answer = self._known[key] = self._ask(mode, template, widths)
        if isinstance(answer, str):
            raise EncoderError(answer)
        return answer

    def close(self) -> None:
        """End the worker process."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def _ask(self, mode: int, template: str, widths: tuple[tuple[int, ...], ...]) -> Encoding | str:
        if self._process is None or self._owner != os.getpid():
            self._process = self._start()
            self._owner = os.getpid()
        process = self._process
        assert process.stdin is not None  # noqa: S101 (both are pipes)
        assert process.stdout is not None  # noqa: S101
        request = json.dumps([mode, template, widths]) + "\n"
        line = b""
        try:
            process.stdin.write(request.encode())
            process.stdin.flush()
            if not select.select([process.stdout], [], [], _PATIENCE)[0]:
                self.close()
                return f"Keystone did not answer within {_PATIENCE:.0f} s"
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            status = process.wait()
            self.close()
            what = "crashed on this statement" if status < 0 else "cannot be run"
            return f"Keystone {what} (worker status {status})"
        answer = json.loads(line)
        if isinstance(answer, str):
            return answer
        code, fields = answer
        return Encoding(bytes.fromhex(code), tuple((start, width) for start, width in fields))

    def _start(self) -> "subprocess.Popen[bytes]":
        # -P: the worker's folder must not shadow modules of the standard library.
        process = subprocess.Popen(  # noqa: S603 (our own interpreter and file)
            [sys.executable, "-P", str(self.worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.close)
        return process
