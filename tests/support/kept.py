"""Connections to PostgreSQL that are kept open: making one costs more than most statements do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


class KeptConnection:
    """A connection made when it is first used, and anew when the server has hung up meanwhile."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._open: Connection | None = None

    def rows(self, sql: Any, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a statement, each by itself committed."""
        if self._open is not None:
            try:
                return self._fetched(self._open, sql, values)
            except psycopg.OperationalError:
                if not self._open.closed:
                    raise
        self.close()
        self._open = self._connect()
        return self._fetched(self._open, sql, values)

    def close(self) -> None:
        """Hang up; the next statement goes over a new connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    @staticmethod
    def _fetched(
        connection: Connection, sql: Any, values: Sequence[Any] | None
    ) -> list[tuple[Any, ...]]:
        # Not prepared: the tests change tables between statements.
        cursor = connection.execute(sql, values, prepare=False)
        return cursor.fetchall() if cursor.description else []
