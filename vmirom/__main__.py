"""`python -m vmirom`."""

from vmirom.entry import main

main()
