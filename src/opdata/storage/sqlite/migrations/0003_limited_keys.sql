-- What a key may do, scopes parted by a space: null is all, as keys were before. And when it ends.
ALTER TABLE api_keys ADD COLUMN scopes TEXT;

ALTER TABLE api_keys ADD COLUMN expires_at_ms INTEGER;

-- The keys of an operator that is suspended are not taken; its data stays.
ALTER TABLE operators ADD COLUMN suspended_at_ms INTEGER;

ALTER TABLE operators ADD COLUMN suspension_reason TEXT;
