"""The commands, run in this process or as a user runs them, on real databases."""
