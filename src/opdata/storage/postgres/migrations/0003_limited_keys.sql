-- What a key may do, scopes parted by a space: null is all, as keys were before. And when it ends.
ALTER TABLE opdata.api_keys ADD COLUMN scopes TEXT COLLATE "C";

ALTER TABLE opdata.api_keys ADD COLUMN expires_at_ms BIGINT;

-- The keys of an operator that is suspended are not taken; its data stays.
ALTER TABLE opdata.operators ADD COLUMN suspended_at_ms BIGINT;

ALTER TABLE opdata.operators ADD COLUMN suspension_reason TEXT;
