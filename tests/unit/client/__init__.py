"""The Python client, against a server in memory."""
