"""An I/O APIC as a process: python -m vmm.devices.ioapicprocess FD.

FD is the number of an inherited socket, as `IoApicProcess` makes it.
"""

import socket
import sys

from vmm.devices.ioapiclink import IoApicServer


def main() -> None:
    """Serve until the other end closes."""
    with socket.socket(fileno=int(sys.argv[1])) as end:
        try:
            IoApicServer(end).serve()
        except (ConnectionError, KeyboardInterrupt):
            return


if __name__ == "__main__":
    main()
