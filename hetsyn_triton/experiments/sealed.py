"""Bytes that carry their own SHA-256 digest at the end, so that any damage shows."""

import hashlib

MARK = b"sha256:"
_LENGTH = len(MARK) + 64


def seal(content: bytes) -> bytes:
    """`content` with its digest after it."""
    return content + MARK + hashlib.sha256(content).hexdigest().encode()


def unseal(sealed: bytes) -> bytes:
    """What `seal` was given; ValueError where a byte of it is missing or changed."""
    content, end = sealed[:-_LENGTH], sealed[-_LENGTH:]
    if not end.startswith(MARK):
        raise ValueError("it does not end with a digest")
    if seal(content) != sealed:
        raise ValueError("its content does not fit its digest")
    return content
