"""Triton backend (placeholder)."""


def unavailable_reason(device_type: str) -> str | None:
    return "not there yet"
