"""A client of the Operator Data API. It knows the wire contract and nothing of the server."""
