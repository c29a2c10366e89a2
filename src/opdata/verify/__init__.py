"""Comparing what a server has with what was to be loaded into it, over HTTP."""
