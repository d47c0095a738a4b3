"""The `vmirom` command, one verb a file."""
