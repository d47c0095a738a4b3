"""What executes guest instructions and reports exits."""
