"""Damaged copies of a file; the same seed damages it in the same way."""

from __future__ import annotations

import random


def mutated(data: bytes, seed: int) -> bytes:
    """Flipped bits, extreme numbers, missing, added and overwritten bytes, or an early end."""
    choose = random.Random(seed)
    found = bytearray(data)
    for _ in range(choose.choice([1, 1, 2, 8, 64])):
        place = choose.randrange(len(found))
        match choose.randrange(6):
            case 0:
                found[place] ^= 1 << choose.randrange(8)
            case 1:
                found[place : place + 4] = choose.choice([b"\xff" * 4, b"\0" * 4, b"\0\0\0\x80"])
            case 2:
                del found[place : place + choose.randrange(1, 200)]
            case 3:
                found[place:place] = choose.randbytes(choose.randrange(1, 50))
            case 4:
                del found[max(place, 16) :]
            case _:
                found[place : place + choose.randrange(1, 64)] = choose.randbytes(16)
        found += b"x" * max(0, 16 - len(found))
    return bytes(found)
