"""Black-box tests of docs/wire.md, clause by clause: requests in, answers and stored rows out."""
