"""What outlives a pass: the store, the lock, the heartbeat, and what was tried."""
