"""One virtual CPU: its registers, its exceptions, and what happens at its exits."""
