-- An event carries the idempotency key it was sent under, so that a listing can show it: looked up by
-- event, event_keys would need an index as large as itself.
ALTER TABLE opdata.events ADD COLUMN idempotency_key TEXT COLLATE "C";

UPDATE opdata.events AS v SET idempotency_key = k.idempotency_key
FROM opdata.event_keys AS k
WHERE k.operator_id = v.operator_id AND k.event_id = v.event_id;
