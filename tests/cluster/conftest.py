"""A Ray cluster of two processors on this machine, and an S3 server with one bucket; skipped without them."""

import os
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import f2d, model, photo

__all__ = ["bucket", "cluster", "f2d", "model", "photo"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="package")
def cluster():
    """Ray, started with two processors."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'f2d[ray]'")
    pytest.importorskip("pyarrow")
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"  # moto stores trailing checksums as contents
    ray.shutdown()  # what a test of this process left connected
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture
def bucket(monkeypatch) -> str:
    """bucket("folder") -> the URI of a folder of an empty bucket on a local S3 server."""
    server = pytest.importorskip("moto.server", reason="needs moto, a local S3 server")
    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    # the servers of one process share what is stored
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="photos")
    yield lambda folder: f"s3://photos/{folder}?endpoint_override={host}:{port}&scheme=http"
    running.stop()
