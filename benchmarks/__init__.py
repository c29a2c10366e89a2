"""Benchmarks: a real server process, real HTTP, realistic items; ratios within one run."""
