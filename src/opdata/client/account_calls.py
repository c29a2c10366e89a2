"""The calls for templates, settings and API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType

from opdata.client import records
from opdata.client.calls import AsyncCalls
from opdata.client.items import encode, require_aware
from opdata.client.records import (
    ApiKey,
    NewApiKey,
    RetentionPolicy,
    Scope,
    Settings,
    SettingsChange,
    Template,
)


class AsyncAccountCalls(AsyncCalls):
    """What belongs to the operator rather than to its players."""

    async def list_templates(self) -> list[Template]:
        """The templates that the server knows."""
        return await self._read(records.TEMPLATES, "/templates")

    async def get_settings(self) -> Settings:
        """The operator's settings."""
        return await self._read(records.SETTINGS, "/settings")

    async def update_settings(
        self,
        *,
        template_id: str | UnsetType = UNSET,
        data_retention_days: int | UnsetType | None = UNSET,
        retention_policy: RetentionPolicy | UnsetType | None = UNSET,
        idempotency_key: str | None = None,
    ) -> Settings:
        """Change what is given and leave the rest as it is; the settings afterwards."""
        change = SettingsChange(template_id, data_retention_days, retention_policy)
        return await self._write(
            records.SETTINGS, "PUT", "/settings", encode(change), idempotency_key=idempotency_key
        )

    async def create_api_key(
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
        answer = await self._transport.request(
            "POST",
            "/api-keys",
            encode({"label": label} | _given(scopes=scopes, expiresAt=expires_at)),
            patience=self._transport.deadline(self._bounds.deadline_s),
            repeatable=False,
        )
        return records.NEW_KEY.decode(answer.data)

    async def list_api_keys(self) -> list[ApiKey]:
        """The operator's keys, oldest first, revoked ones included."""
        return await self._read(records.KEYS, "/api-keys")

    async def rename_api_key(self, key_id: str, label: str) -> ApiKey:
        """Give a key another label."""
        answer = await self._transport.request(
            "PATCH",
            "/api-keys",
            encode({"id": key_id, "label": label}),
            patience=self._transport.deadline(self._bounds.deadline_s),
        )
        return records.KEY.decode(answer.data)

    async def revoke_api_key(self, key_id: str) -> ApiKey:
        """End a key. Raises `Conflict` for the last active one."""
        answer = await self._transport.request(
            "DELETE",
            "/api-keys",
            params={"id": key_id},
            patience=self._transport.deadline(self._bounds.deadline_s),
        )
        return records.KEY.decode(answer.data)

    async def is_ready(self) -> bool:
        """Whether the server reaches its store and can take requests now. Tries once."""
        return await self._transport.is_up("/readyz")


def _given(**members: Any) -> dict[str, Any]:
    """The members that are said: a server that does not know them need not hear of them."""
    return {name: value for name, value in members.items() if value is not None}
