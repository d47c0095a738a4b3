"""The run loop, with one host thread for all virtual CPUs or with one for each."""
