"""Where bytes meet the network: identity, secure link, dial and listen, throttle.

The identity key of this node, links that run the Noise handshake and the
record layer of `furymesh.wire` over sockets, the code that dials and accepts
them, and the rate limits wrapped around them. What a peer says is decided
elsewhere: the rules of the protocol live below, in `wire`; what to do about a
message lives above, in `swarm`.
"""
