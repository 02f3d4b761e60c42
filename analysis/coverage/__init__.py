"""Coverage: the gates of public networks, checked below Python's functions.

    python -m analysis.coverage

The command writes ``docs/results/coverage/networks.jsonl`` and ``docs/reference/coverage.md``.
"""
