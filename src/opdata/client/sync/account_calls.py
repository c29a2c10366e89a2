# Made from opdata/client/account_calls.py by tools/generate_sync.py: edit that, then make sync-client.
"""The calls for jobs, templates, settings and API keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import UNSET, UnsetType

from opdata.client import records
from opdata.client.errors import JobFailed, JobNotDone
from opdata.client.items import encode, require_aware
from opdata.client.records import (
    ApiKey,
    Job,
    JobStatus,
    JobType,
    NewApiKey,
    Page,
    RetentionPolicy,
    Scope,
    Settings,
    SettingsChange,
    Template,
)
from opdata.client.sync.calls import MAX_PAGE_ITEMS, Calls

_FIRST_POLL_S: Final = 0.1
_SLOWEST_POLL_S: Final = 2.0


class AccountCalls(Calls):
    """What belongs to the operator rather than to its players."""

    def get_job(self, job_id: str) -> Job:
        """A batch's record (W29)."""
        return self._read(records.JOB, f"/batch/jobs/{job_id}")

    def wait_for_job(self, job_id: str, *, timeout_s: float = 300.0) -> Job:
        """Ask until the job is completed. Raises `JobFailed`, `JobNotDone` after `timeout_s` seconds.

        Each question has the client's own deadline, which may end later.
        """
        patience = self._transport.deadline(timeout_s)
        wait_s = _FIRST_POLL_S
        while True:
            job = self.get_job(job_id)
            if job.status == "completed":
                return job
            if job.is_done:
                why = f": {job.error.code}: {job.error.message}" if job.error else ""
                raise JobFailed(f"Job {job_id} is {job.status}{why}", job)
            left_s = patience.left_s()
            if left_s <= 0:
                message = f"Job {job_id} is still {job.status} after {timeout_s:g} s"
                raise JobNotDone(message, job)
            self._transport.sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _SLOWEST_POLL_S)

    def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        job_type: JobType | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Job]:
        """A page of jobs, newest first."""
        params = {"status": status, "type": job_type, "limit": str(limit), "cursor": cursor}
        return self._read(records.JOBS, "/batch/jobs", params)

    def iter_jobs(
        self, *, status: JobStatus | None = None, job_type: JobType | None = None
    ) -> Iterator[Job]:
        """All jobs, newest first."""

        def page_at(cursor: str | None) -> Page[Job]:
            return self.list_jobs(
                status=status, job_type=job_type, limit=MAX_PAGE_ITEMS, cursor=cursor
            )

        return self._pages(page_at)

    def list_templates(self) -> list[Template]:
        """The templates that the server knows."""
        return self._read(records.TEMPLATES, "/templates")

    def get_settings(self) -> Settings:
        """The operator's settings."""
        return self._read(records.SETTINGS, "/settings")

    def update_settings(
        self,
        *,
        template_id: str | UnsetType = UNSET,
        data_retention_days: int | UnsetType | None = UNSET,
        retention_policy: RetentionPolicy | UnsetType | None = UNSET,
        idempotency_key: str | None = None,
    ) -> Settings:
        """Change what is given and leave the rest as it is; the settings afterwards."""
        change = SettingsChange(template_id, data_retention_days, retention_policy)
        return self._write(
            records.SETTINGS, "PUT", "/settings", encode(change), idempotency_key=idempotency_key
        )

    def create_api_key(
        self,
        label: str,
        *,
        scopes: Sequence[Scope] | None = None,
        expires_at: datetime | None = None,
    ) -> NewApiKey:
        """Make a key for this operator.

        Without `scopes` it may do what this client's key may, and without `expires_at` it has no end.
        Raises `Forbidden` for a scope that this client's key has not (W11).

        The server tells no repetition of this call. After `OutcomeUnknown`, look in `list_api_keys`
        for a key of that label, and revoke it: nobody knows it.
        """
        if expires_at is not None:
            require_aware("expires_at", expires_at)
        answer = self._transport.request(
            "POST",
            "/api-keys",
            encode({"label": label} | _given(scopes=scopes, expiresAt=expires_at)),
            patience=self._transport.deadline(self._bounds.deadline_s),
            repeatable=False,
        )
        return records.NEW_KEY.decode(answer.data)

    def list_api_keys(self) -> list[ApiKey]:
        """The operator's keys, oldest first, revoked ones included."""
        return self._read(records.KEYS, "/api-keys")

    def rename_api_key(self, key_id: str, label: str) -> ApiKey:
        """Give a key another label."""
        answer = self._transport.request(
            "PATCH",
            "/api-keys",
            encode({"id": key_id, "label": label}),
            patience=self._transport.deadline(self._bounds.deadline_s),
        )
        return records.KEY.decode(answer.data)

    def revoke_api_key(self, key_id: str) -> ApiKey:
        """End a key. Raises `Conflict` for the last active one."""
        answer = self._transport.request(
            "DELETE",
            "/api-keys",
            params={"id": key_id},
            patience=self._transport.deadline(self._bounds.deadline_s),
        )
        return records.KEY.decode(answer.data)

    def is_ready(self) -> bool:
        """Whether the server reaches its store and can take requests now. Tries once."""
        return self._transport.is_up("/readyz")


def _given(**members: Any) -> dict[str, Any]:
    """The members that are said: a server that does not know them need not hear of them."""
    return {name: value for name, value in members.items() if value is not None}
