"""Ports: who may access one, and what answers: a device, a filter, or code in the guest."""
