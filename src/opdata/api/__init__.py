"""HTTP: the endpoint table, what stands in front of it and the handlers behind it."""
