"""The terminal that a verb was started from."""

import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["single_keys"]


@contextmanager
def single_keys() -> Iterator[bool]:
    """Stdin hands over single keys, unechoed, meanwhile; false where it is no terminal."""
    if not sys.stdin.isatty():
        yield False
        return
    before = termios.tcgetattr(sys.stdin)
    keys = termios.tcgetattr(sys.stdin)
    keys[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, keys)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
