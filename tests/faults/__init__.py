"""Faults injected on purpose, and what must hold after each: docs/reliability.md has the table.

`make test` runs these tests with few repetitions, `make torture` the same tests with many.
"""
