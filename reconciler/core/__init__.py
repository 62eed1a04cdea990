"""From what is declared and what is seen to a plan, and from a plan to what was done."""
