"""One small evaluation for all tests of pages, and the page of it."""

import pytest

from f2d.evaluation.published import PublishedRow, PublishedTable
from tests.report.sample import Sample, make_sample

PUBLISHED = PublishedTable(
    "Photographs of others",
    "Somebody et al. (2020), table 2",
    "luma in floating point",
    ("Error",),
    ("PSNR", "SSIM"),
    (PublishedRow("Best of 2020", "5.98M", {"PSNR": 99.9, "SSIM": None}, {"PSNR": "99.90", "SSIM": None}),),
)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("evaluations"))


@pytest.fixture
def opened(monkeypatch, sample):
    """The data that pages find, replaced by the sample's, or by what the test calls this with."""

    def use(data=sample.data, tables=(PUBLISHED,)):
        monkeypatch.setattr("f2d.report.gather.open_data", lambda text, limit: data)
        monkeypatch.setattr("f2d.report.gather.tables", lambda names: list(tables))

    use()
    return use


@pytest.fixture(scope="session")
def page(sample, tmp_path_factory):
    """A page of both evaluations with all details, and what it told it leaves out."""
    from f2d.report.page import write_report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("f2d.report.gather.open_data", lambda text, limit: sample.data)
        patch.setattr("f2d.report.gather.tables", lambda names: [PUBLISHED])
        patch.setattr("f2d.report.details.SPREAD_STEPS", (1, 2, 3))  # 24 calls a picture, where the real ones take 60
        path = tmp_path_factory.mktemp("page") / "report.html"
        notes = write_report(sample.folders, path, device="cpu")
    return path, notes
