"""Moving in: specs made from what people have already. It must not change anything on the host."""
