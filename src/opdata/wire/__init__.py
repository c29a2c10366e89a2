"""The wire format: bytes to items and back, bounded and lossless, without any framework."""
