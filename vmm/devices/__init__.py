"""The userspace side of the monitor: devices, in plain Python."""
