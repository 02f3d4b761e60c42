"""attnscope beside its peers: ``python -m analysis.peers``; see `analysis.peers.__main__`."""
