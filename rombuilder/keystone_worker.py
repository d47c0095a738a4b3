"""The process that runs Keystone: one JSON request a line in, one JSON answer a line out.

Keystone 0.9.2 crashes on some inputs, so it lives in a process of its own. This
file is run as a script and imports nothing of the package, which keeps its start
short.

A request is [mode, template, widths]: the mode is 16 or 32, the template is one
instruction with "{0}", "{1}" where a field's value is not known yet, and widths
lists for each such field the widths in bytes to try, in order. An answer is
[hex, [[offset, width], ...]] with those fields zero, or a plain string that says
what is wrong.
"""

import itertools
import json
import signal
import sys

import keystone

# Two values for each width that differ in every byte and fit no shorter form, so
# that the bytes that differ are the field and nothing else.
_PROBES = {4: (0x35A1B2C3, 0x4AD6E7F8), 2: (0x35A1, 0x4AD6), 1: (0x15, 0x0A)}


def _engines() -> dict[int, keystone.Ks]:
    engines = {
        16: keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16),
        32: keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_32),
    }
    for engine in engines.values():
        engine.syntax = keystone.KS_OPT_SYNTAX_ATT
    return engines


def _assemble(engine: keystone.Ks, text: str) -> bytes:
    code, count = engine.asm(text.encode("ascii"), 0, True)  # noqa: FBT003 (Keystone's API)
    if not code or count != 1:
        raise ValueError("no encoding found")
    return bytes(code)


def _field(first: bytes, second: bytes, width: int) -> int | None:
    """Where exactly the probe of this width went, or None."""
    if len(first) != len(second):
        return None
    differing = [index for index in range(len(first)) if first[index] != second[index]]
    if not differing:
        return None
    start = differing[0]
    probes = _PROBES[width]
    found = (
        differing == list(range(start, start + width))
        and first[start : start + width] == probes[0].to_bytes(width, "little")
        and second[start : start + width] == probes[1].to_bytes(width, "little")
    )
    return start if found else None


def _with_widths(
    engine: keystone.Ks, template: str, widths: tuple[int, ...]
) -> tuple[bytes, list[tuple[int, int]]] | None:
    values = [hex(_PROBES[width][0]) for width in widths]
    code = bytearray(_assemble(engine, template.format(*values)))
    fields = []
    for index, width in enumerate(widths):
        changed = [*values[:index], hex(_PROBES[width][1]), *values[index + 1 :]]
        start = _field(bytes(code), _assemble(engine, template.format(*changed)), width)
        if start is None:
            return None
        fields.append((start, width))
    for start, width in fields:
        code[start : start + width] = bytes(width)
    return bytes(code), fields


def _answer(engine: keystone.Ks, template: str, widths: list[list[int]]) -> object:
    problem = "no encoding found for a symbol in this place"
    for choice in itertools.product(*widths):
        try:
            found = _with_widths(engine, template, choice)
        except keystone.KsError as error:
            problem = str(error)
        except ValueError as error:
            problem = str(error)
        else:
            if found is not None:
                return [found[0].hex(), found[1]]
    return problem


def main() -> None:
    """Serve requests until the input ends."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engines = _engines()
    for line in sys.stdin:
        mode, template, widths = json.loads(line)
        sys.stdout.write(json.dumps(_answer(engines[mode], template, widths)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
