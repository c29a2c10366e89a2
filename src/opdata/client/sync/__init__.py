"""The blocking client. All modules but `io` are made by `tools/generate_sync.py`: edit their sources."""
