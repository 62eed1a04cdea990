"""The desired and the observed state, the plan between them, and what was done by it."""
