"""Loading of the compiled part (placeholder until the C++ part lands)."""


def load_cpu() -> str | None:
    return "not built"


def load_cuda() -> str | None:
    return "not built"


def build_info() -> dict | None:
    return None
