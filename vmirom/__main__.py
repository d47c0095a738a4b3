"""`python -m vmirom`."""

from vmirom.main import main

main()
