-- An event carries the idempotency key it was sent under, so that a listing can show it: looked up by
-- event, event_keys would need an index as large as itself.
ALTER TABLE events ADD COLUMN idempotency_key TEXT;

CREATE INDEX event_keys_by_event ON event_keys (event_id);

UPDATE events SET idempotency_key = k.idempotency_key
FROM event_keys AS k
WHERE k.event_id = events.event_id AND k.operator_id = events.operator_id;

DROP INDEX event_keys_by_event;
