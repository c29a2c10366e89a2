"""Exports, from a fake server's pages to files."""
