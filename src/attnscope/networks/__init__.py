"""Networks: ours, with attention; and those of others, by name."""
