"""What docs/generate.py writes: reference pages from the code, and the examples' outputs."""
