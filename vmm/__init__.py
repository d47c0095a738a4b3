"""The monitor: an emulated machine that runs a guest and accounts for every exit."""
