"""What people are told: transitions, the queue of messages, and their delivery."""
