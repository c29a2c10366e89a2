"""Tests of the benchmarks: what their figures stand on."""
