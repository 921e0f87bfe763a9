"""The protocol without I/O: bytes in, messages out, and the other way round.

``noise`` makes a link secret, ``authentication`` says who is at its end,
``records`` carries bytes over it, ``codec`` turns control records into typed
messages and back, and ``session`` refuses what is not legal in its state.
docs/protocol.md is the specification.
"""
