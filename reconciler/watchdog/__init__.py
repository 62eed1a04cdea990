"""The loop: what wakes it, the passes that it has made, and the probes between them."""
