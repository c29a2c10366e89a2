"""The write-ahead log's way back into the database: copied by a thread of its own, beside the writer.

SQLite by itself copies a log that has grown long within the commit that made it so, and everybody waits
for some tenths of a second. Here a thread copies while the writer goes on adding to the log; what was added
meanwhile the writer copies between two transactions, so that the log begins anew.

When a flush of the database fails, the system forgets pages that it did not write, and SQLite does not copy
again what it took for copied. All of it is in the log still. So from then on this process copies nothing more
and keeps the log from being begun anew: the next start makes the database whole from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import apsw

from opdata.storage.sqlite.connection import wait_when_busy

_COPY_AT_PAGES: Final = 16_000  # 64 MiB of log: many changes of a page are copied back once
_REST_PAGES: Final = 2_000  # what the writer copies by itself in a few milliseconds
_MOST_PAGES: Final = 4 * _COPY_AT_PAGES
_EMPTYING_WAIT_S: Final = 0.25


class Checkpoints:
    """Keeps the log of one writer short. Its methods are called by the writer alone."""

    def __init__(self, connect: Callable[[], apsw.Connection], busy_timeout_s: float) -> None:
        self._connect = connect
        self._busy_timeout_s = busy_timeout_s
        self._pages = 0
        """Of the log, as of the last commit."""
        self._copied = 0
        self._due = _COPY_AT_PAGES
        """A log of so many pages is seen to."""
        self._beside: threading.Thread | None = None
        self._keeps_log = False
        self._pin: apsw.Connection | None = None
        """Reads an old snapshot, so that no other process begins the log anew."""

    def watch(self, connection: apsw.Connection) -> None:
        """Follow the commits of the writer's connection, which copies nothing by itself from now on."""
        connection.set_wal_hook(self._committed)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # see `close`

    def after_commit(self, connection: apsw.Connection) -> None:
        """Have the log copied, or its rest, when it has grown long. To be called between transactions."""
        if self._pages < self._due:
            return
        if self._beside is not None and self._beside.is_alive():
            if self._pages < _MOST_PAGES:
                return
            self._beside.join()  # else the log of a writer that is faster than the copying has no bounds
        if self._keeps_log:  # as the thread has found, perhaps
            return
        if self._pages - self._copied <= _REST_PAGES or self._pages >= _MOST_PAGES:
            self._copy(connection)
        else:
            beside = threading.Thread(target=self._copy_beside, name="sqlite-checkpoint")
            try:
                beside.start()
            except RuntimeError:  # the system has no thread to give
                self._copy(connection)
            else:
                self._beside = beside

    def empty(self, connection: apsw.Connection) -> bool:
        """Leave nothing in the log (W51); whether that was possible.

        Readers of older snapshots hold it up, and whatever becomes of it, no commit is undone.
        """
        if self._beside is not None:
            self._beside.join()
        if self._keeps_log:
            return False
        wait_when_busy(connection, _EMPTYING_WAIT_S)
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            self._failed(error)
            return False
        finally:
            wait_when_busy(connection, self._busy_timeout_s)
        return True

    def close(self, connection: apsw.Connection | None) -> None:
        """Finish, and close the writer's connection, which copies the log when it is the last one."""
        if self._beside is not None:
            self._beside.join()
        if connection is not None:
            if not self._keeps_log:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            connection.close()
        if self._pin is not None:
            self._pin.close()

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        if pages < self._pages:  # the log has begun anew
            self._copied, self._due = 0, _COPY_AT_PAGES
        self._pages = pages
        return apsw.SQLITE_OK

    def _copy_beside(self) -> None:
        try:
            connection = self._connect()
        except apsw.Error:
            self._due = self._pages + _REST_PAGES
            return
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            if self._copy(connection):
                self._due = 0  # what was added meanwhile is next
        finally:
            connection.close()

    def _copy(self, connection: apsw.Connection) -> bool:
        """Copy what can be copied; whether that was all there was.

        A reader of an older snapshot, another process that copies, or an error of the disk leaves some of
        the log where it is, and whole. It is tried again when the log has grown by another piece.
        """
        try:
            pages, self._copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            self._failed(error)
            self._due = self._pages + _REST_PAGES
            return False
        self._due = pages + _REST_PAGES
        return self._copied == pages

    def _failed(self, error: apsw.Error) -> None:
        if getattr(error, "extendedresult", None) != apsw.SQLITE_IOERR_FSYNC:
            return
        self._keeps_log = True
        from opdata.logs import log  # noqa: PLC0415 - start-up time of commands

        log.error(
            "flush_failed",
            advice="The disk failed. Nothing acknowledged is lost: it is in the write-ahead log, which grows "
            "until the server is restarted. See to the disk, and restart the server.",
        )
        try:
            self._pin = self._connect()
            self._pin.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._pin.execute("BEGIN; SELECT count(*) FROM sqlite_schema").fetchall()
        except apsw.Error:
            pass  # this process begins no log anew, with it or without
