"""What PostgreSQL makes of the server store's statements and tables."""
