"""The protocol without I/O: bytes in, messages out, and the other way round.

``noise`` makes a link secret, ``authentication`` says who is at its end,
``records`` carries bytes over it. ``codec`` and ``sync_codec`` (what they share is
in ``coding``) turn control records into typed ``messages`` and back; ``session``
refuses what is not legal in its state, and ``exchange`` what is not in folder sync.
docs/protocol.md is the specification. How peers are found is said in
``datagrams`` on the local network, and in ``tracker``, ``tracker_udp`` and
``bencode`` to trackers.
"""
