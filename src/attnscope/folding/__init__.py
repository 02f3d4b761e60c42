"""Replace gates by constants."""
