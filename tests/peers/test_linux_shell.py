"""A shell on a Linux kernel in our machine, used as a person at a terminal uses it.

VMI_KERNEL names the kernel, as in test_linux.py, and VMI_SHELL_INITRD an initial RAM disk
with a /bin/sh and a few commands (busybox has all of them).
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.inputs import patterned_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Shell(Protocol):
        """Starts a shell with this ROM."""

        def __call__(self, rom: str, *options: str, initrd: str = ...) -> Terminal: ...


ROOT = Path(__file__).parents[2]
KERNEL, INITRD = os.environ.get("VMI_KERNEL", ""), os.environ.get("VMI_SHELL_INITRD", "")
LONGEST = 30.0
"""Seconds that an answer may take on a busy machine."""

pytestmark = pytest.mark.skipif(
    not (KERNEL and INITRD),
    reason="VMI_KERNEL and VMI_SHELL_INITRD are not set: they name a Linux kernel with CONFIG_VMI "
    "and an initial RAM disk with a shell",
)


class Terminal:
    """A process on a pseudo-terminal, and what it has printed since it was last asked."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vmirom", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "80"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.unread = ""

    def type(self, text: str) -> None:
        """As if somebody pressed these keys."""
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for output that matches, and take everything up to its end."""
        deadline = time.monotonic() + LONGEST
        while True:
            found = re.search(pattern, self.unread)
            if found:
                self.unread = self.unread[found.end() :]
                return found
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.unread[-2000:]!r}"
            if select.select([self.master], [], [], left)[0]:
                data = self._read()
                assert data, f"the end before {pattern!r}: {self.unread[-2000:]!r}"
                self._keep(data)

    def rest(self) -> str:
        """Everything to the end of the process."""
        while data := self._read():
            self._keep(data)
        return self.unread

    def _read(self) -> bytes:
        """What there is; nothing at the end, which Linux calls an error."""
        try:
            return os.read(self.master, 65536)
        except OSError:
            return b""

    def _keep(self, data: bytes) -> None:
        # Both terminals, the guest's and this one, add a carriage return; and a shell that edits
        # lines asks where the cursor is.
        text = data.decode(errors="replace").replace("\r", "")
        self.unread = (self.unread + text).replace("\x1b[6n", "")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture(name="shell")
def fixture_shell() -> Iterator[Shell]:
    terminals = []

    def start(rom: str, *options: str, initrd: str = INITRD) -> Terminal:
        terminal = Terminal(
            *("run", KERNEL, "--initrd", initrd, "--rom", rom, "--interactive", *options),
            *("--append", "console=ttyS0 panic=1 rdinit=/bin/sh"),
        )
        terminals.append(terminal)
        terminal.expect(r"(?m)^[^\n]*# $")
        return terminal

    yield start
    for terminal in terminals:
        terminal.close()


@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
def test_a_shell_can_be_used(shell: Shell, rom: str) -> None:
    terminal = shell(rom)
    terminal.type("echo $((6*7))\n")
    terminal.expect(r"\n42\n")
    # Keys are echoed by the guest, and backspace takes one back there.
    terminal.type("echo wronh")
    terminal.expect("wronh")
    terminal.type("\x7fg | sed s/wrong/right/\n")
    terminal.expect(r"\nright\n")
    # Processes, pipes, files, and commands typed ahead of their turn.
    terminal.type("seq 1000 | sort -r | md5sum >/tmp/sum; cat /tmp/sum; echo $?\n")
    terminal.expect(r"\na1633ac8dd529995ee2b84872e91c9a0  -\n0\n")
    terminal.type("sleep 1; echo awake\necho next\n")
    terminal.expect(r"\nawake\n.*next\n")
    # A command that is not there, and one that fails.
    terminal.type("no-such-command; false; echo status $?\n")
    terminal.expect(r"not found\nstatus 1\n")
    terminal.type("reboot -f\n")
    terminal.expect("Restarting system")
    assert re.search(r"total +[\d,]+", terminal.rest())
    assert terminal.process.wait(timeout=LONGEST) == 0


def test_ctrl_c_leaves_an_idle_shell_with_the_counts(shell: Shell) -> None:
    terminal = shell("batching")
    terminal.type("echo ready\n")
    terminal.expect(r"\nready\n")
    terminal.process.send_signal(signal.SIGINT)
    assert re.search(r"total +[\d,]+", terminal.rest())
    assert terminal.process.wait(timeout=LONGEST) == 130


def test_exit_ends_the_shell_and_so_the_kernel(shell: Shell) -> None:
    terminal = shell("none")
    terminal.type("exit\n")
    terminal.expect("Attempted to kill init")
    assert "panic" in terminal.rest()
    assert terminal.process.wait(timeout=LONGEST) == 1


def block_device(name: str, major: int, minor: int) -> bytes:
    """An initial RAM disk that holds a block device (Linux, initramfs-buffer-format: "newc")."""

    def entry(name: str, mode: int, device: tuple[int, int]) -> bytes:
        text = name.encode() + b"\0"
        fields = (1, mode, 0, 0, 1, 0, 0, 0, 0, *device, len(text), 0)
        header = "070701" + "".join(f"{field:08x}" for field in fields)
        data = header.encode() + text
        return data + bytes(-len(data) % 4)

    return entry(name, 0o60600, (major, minor)) + entry("TRAILER!!!", 0, (0, 0))


def test_a_disk_is_read_through_reflection(shell: Shell, tmp_path: Path) -> None:
    """The driver's own port instructions: the same bytes, for a hundredth of the heavy exits."""
    content = patterned_disk(2048)
    disk, initrd = tmp_path / "disk", tmp_path / "initrd"
    disk.write_bytes(content)
    archive = Path(INITRD).read_bytes()
    initrd.write_bytes(archive + bytes(-len(archive) % 4) + block_device("hda", 3, 0))
    heavy = {}
    for options in ((), ("--reflect",)):
        terminal = shell("batching", "--disk", str(disk), *options, initrd=str(initrd))
        terminal.type("dd if=/hda bs=4096 count=256 >/copy; md5sum </copy\n")
        terminal.expect(rf"\n{md5(content, usedforsecurity=False).hexdigest()}  -\n")
        # Written elsewhere, and read back from the disk.
        terminal.type("dd if=/copy of=/hda bs=4096 count=16 seek=100\n")
        terminal.type(
            "mkdir -p /proc; mount -t proc proc /proc; echo 3 >/proc/sys/vm/drop_caches\n"
        )
        terminal.type("dd if=/hda bs=4096 skip=100 count=16 >/back; md5sum </back\n")
        terminal.expect(rf"\n{md5(content[:65536], usedforsecurity=False).hexdigest()}  -\n")
        terminal.type("reboot -f\n")
        terminal.expect("Restarting system")
        report = terminal.rest()
        assert terminal.process.wait(timeout=LONGEST) == 0
        rows = dict(re.findall(r"(?m)^ (\w+) +([\d,]+ +[\d,]+ +[\d,]+)", report))
        assert ("reflect" in rows) == bool(options)
        heavy[bool(options)] = int(rows["io"].split()[2].replace(",", ""))
    assert heavy[True] < 0.05 * heavy[False]
