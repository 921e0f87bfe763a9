"""Pure decisions and formats: no I/O, no clock, no randomness of its own.

Everything here is synchronous and deterministic; the time and a random
generator are arguments. The layers above act on what is decided here.
"""
