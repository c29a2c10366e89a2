"""Loading files into the API: files -> rows -> items -> batches -> answers.

The loader is a client like any other: it speaks HTTP and imports nothing of the server.
"""
