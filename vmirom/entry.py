"""Where the `vmirom` command begins: before anything of it is loaded."""

import os
import signal

__all__ = ["main"]

_INTERRUPTED = 130
"""As in `vmirom.output`, which takes a while to load."""


def main() -> None:
    """Entry point.

    Until the verb's module is loaded, Ctrl-C ends the program at once: an exception out
    of an import would end it with a traceback.
    """
    signal.signal(signal.SIGINT, lambda _signal, _frame: os._exit(_INTERRUPTED))
    from vmirom.main import main as command  # noqa: PLC0415 - after the handler, for its sake

    command()
