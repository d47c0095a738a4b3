"""The shadow MMU: the tables that the processor really runs on, and the guest's own."""
