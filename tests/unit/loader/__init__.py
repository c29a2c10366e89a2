"""The loader, from files to what arrives at a server."""
