"""The scripts that run inside each peer's own environment: they import the engine, and nothing of Quire.

Only `run_quire` imports Quire. All read and write what `peer_session` describes.
"""
