"""What the tests stand on: a running server, the API in this process, and the stored rows."""
