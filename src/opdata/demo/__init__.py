"""The demo: sample data through a real server, with the commands and requests a user would type.

It imports nothing of the server: what it shows is what anybody can do.
"""
