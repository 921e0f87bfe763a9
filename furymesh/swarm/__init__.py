"""The swarm: links, shares and downloads acting on what the core decides.

``Swarm`` owns the links, those that ``Admission`` lets in, and dispatches their
messages; a ``Share`` is one share's life on this node, serving its members; a
``Download`` is a share that is not complete yet and fetches, verifies, stores
and finishes it.
"""
