"""Where peers come from: addresses are hints, the secure link decides.

``book`` remembers, per share, which addresses were heard of from whom, which
are worth trying now, and why an attempt failed.
"""
