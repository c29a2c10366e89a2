"""The contract of `Store`, which every store is held to by the same tests."""
