"""Workloads x ROMs x policies -> measurements."""
