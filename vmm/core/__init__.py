"""The kernel side of the monitor; its hot path is compiled."""
