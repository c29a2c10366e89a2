"""The server store from inside: what cannot be seen through the protocol that every store keeps."""
