"""Retention: rows past an operator's windows go to archive files, and in the end for good (W50)."""
