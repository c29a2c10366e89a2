"""Token buckets as every store counts them: docs/decisions/0003-rate-limits.md.

GCRA, the generic cell rate algorithm: a bucket is one time, at which it will be full again. A
request moves it on by one emission interval, and is refused if that would take it further than a
whole bucket from now. A clock set back must not lock anyone out for longer than that either: what
is stored is brought within it, so that the wait is counted on the new clock.
"""

from __future__ import annotations

from msgspec import Struct

from opdata.model import Quota
from opdata.storage.base import Taken


class Bucket(Struct, frozen=True):
    """A quota at a moment, in microseconds."""

    now_us: int
    interval_us: int
    size_us: int

    @property
    def latest_us(self) -> int:
        """The latest time at which the bucket may be full again."""
        return self.now_us + self.size_us


def bucket_of(quota: Quota, now_ms: int) -> Bucket:
    """The quota's bucket at this moment."""
    interval_us = max(1, quota.window_s * 1_000_000 // quota.requests)
    return Bucket(now_ms * 1000, interval_us, interval_us * quota.requests)


def taken_of(bucket: Bucket, full_at_us: int | None, *, granted: bool) -> Taken:
    """The answer to a request after which the bucket will be full at that time."""
    used_us = 0 if full_at_us is None else min(full_at_us - bucket.now_us, bucket.size_us)
    return Taken(
        granted=granted,
        remaining=max(0, (bucket.size_us - used_us) // bucket.interval_us),
        reset_s=max(0, used_us) / 1_000_000,
        retry_after_s=0 if granted else (used_us + bucket.interval_us - bucket.size_us) / 1_000_000,
    )
