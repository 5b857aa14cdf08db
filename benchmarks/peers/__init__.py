"""Quire beside other engines on this machine: `python -m benchmarks.peers run`, and `... setup` before it.

What a peer is asked is in `workloads`; the scripts that ask it, run by each peer's own Python, in `engines/`.
"""
