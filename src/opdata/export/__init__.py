"""Entities, events and states out of a server over HTTP, in files that load as they are.

It knows the wire contract and nothing of the server.
"""
