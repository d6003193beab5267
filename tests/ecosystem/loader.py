"""A process that loads what it is told to, line by line: the Hub's client reads its settings when it is imported."""

import hashlib
import json
import os
import sys


def main() -> None:
    from typer.testing import CliRunner

    from f2d.cli.commands import app
    from f2d.engine.restorer import Restorer
    from f2d.nets import F2DNet, F2DNetConfig
    from f2d.nets.models import load_network

    calls = {
        "net": F2DNet.from_pretrained,
        "config": F2DNetConfig.from_pretrained,
        "any": load_network,
        "restorer": Restorer.load,
    }
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        what, source, options, folder = json.loads(line)
        os.chdir(folder)
        if what == "cli":
            result = CliRunner().invoke(app, source)
            answer = {name: getattr(result, name) for name in ("exit_code", "stdout", "stderr", "output")}
            print(json.dumps(answer), file=answers, flush=True)
            continue
        try:
            found = calls[what](source, **options)
            answer = {"config": found.config.to_dict() if what != "config" else found.to_dict()}
            if what in ("net", "any"):
                answer["weights"] = digest(found.state_dict())
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def digest(state: dict) -> str:
    """SHA-256 of a state dict's values."""
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in state.values())).hexdigest()


if __name__ == "__main__":
    main()
