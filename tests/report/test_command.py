"""`f2d report`: a page from evaluations on disk, of records made for the test and of a real evaluation."""

import json
import re

import typer
from PIL import Image
from typer.testing import CliRunner, Result

from f2d.cli.report import report
from f2d.evaluation.evaluation import Evaluation, Request
from f2d.images import to_picture
from f2d.metrics.conventions import CONVENTIONS
from f2d.report.page import write_report
from tests.report.reader import Reader
from tests.report.sample import make_cases


def command(*arguments) -> Result:
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_writes_replaces_and_refuses(opened, sample, tmp_path):
    target = tmp_path / "new" / "page.html"
    ran = command(sample.folders[0], "-o", target, "--images", 1, "--no-details")
    assert ran.exit_code == 0 and str(target) in ran.output and target.is_file()
    again = command(sample.folders[0], "-o", target)
    assert again.exit_code == 2 and "exists (--overwrite replaces it)" in again.output
    before = target.read_bytes()
    ran = command(*sample.folders, "-o", target, "--overwrite", "--images", 1, "--no-details")
    assert ran.exit_code == 0 and target.read_bytes() != before
    ran = command(sample.folders[0], "-o", tmp_path / "page.txt")
    assert ran.exit_code == 2 and "must be a file name that ends in .html" in ran.output
    ran = command(tmp_path, "-o", tmp_path / "b.html")
    assert ran.exit_code == 2 and "contains no evaluation" in ran.output and "Traceback" not in ran.output


def test_outputs_of_another_method_have_no_time(tmp_path):
    """The page said that they took 0 s, and gave them the memory of the measurements."""
    for i in range(2):
        for folder in ("gt", "input", "theirs"):
            (tmp_path / "rain" / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 24), (90, 60, 30 * i)).save(tmp_path / "rain" / folder / f"{i}.png")
    evaluation = Evaluation(Request(str(tmp_path / "rain" / "theirs"), f"pairs={tmp_path / 'rain'}"), tmp_path / "eval")
    evaluation.folder.create()
    list(evaluation.run(evaluation.data.cases))
    evaluation.finish(evaluation.records())
    write_report([tmp_path / "eval"], tmp_path / "page.html", details=False)
    text = (tmp_path / "page.html").read_text()
    assert '<td class="number">2 of 2</td><td class="number">–</td><td class="number">–</td></tr>' in text
    row = '<tr><th scope="row">Seconds</th><td class="number">–</td><td class="number">–</td></tr>'
    assert text.count(row) == 2


def test_page_of_a_real_evaluation(tmp_path):
    """`f2d.evaluation` as it is, from a folder of pairs: conventions, other measures, a set measure, selectivity."""
    degraded, clean = tmp_path / "data" / "rain" / "input", tmp_path / "data" / "rain" / "gt"
    cases = make_cases(tmp_path / "made", (96, 96), 2)
    for folder in (degraded, clean):
        folder.mkdir(parents=True)
    for i, case in enumerate(cases):
        pixels = case._replace(category="rain").load()
        to_picture(pixels.degraded).save(degraded / f"{i}.png")
        to_picture(pixels.clean).save(clean / f"{i}.png")
    data, conventions = f"pairs={tmp_path / 'data'}", ("onerestore", "f2dnet")
    request = Request("f2d-lite", data, conventions, ("mae", "sharpness"), device="cpu")
    evaluation = Evaluation(request, tmp_path / "eval")
    evaluation.folder.create()
    list(evaluation.run(evaluation.data.cases))
    summary = evaluation.finish(evaluation.records())
    results = tmp_path / "eval" / "results.json"
    results.write_text(
        json.dumps(json.loads(results.read_text()) | {"over_sets": {evaluation.folder.settings.measures[-1].key: 7.5}})
    )
    assert write_report([tmp_path / "eval"], tmp_path / "page.html", details=False) == []
    page = (tmp_path / "page.html").read_text()
    ratios = re.search(r'aria-label="Selectivity">.*?</table>', page)[0]
    assert "max_min" in ratios and "inside_masks" not in ratios and "nan" not in ratios  # the masks are unknown
    text = Reader(page).text
    for name in ("onerestore", "f2dnet"):
        assert f"{name} : {CONVENTIONS[name].text}" in text
    for about in evaluation.folder.settings.measures:
        assert f"{summary.all.values[about.key]:.{about.digits}f}" in text, about
    assert "Other measures" in text and "Measures of all pictures together" in text and "7.5" in text
    assert "best first by Sharpness" not in text and "first by PSNR" in text  # sharpness has no better end
    assert f"{summary.selectivity['max_min'].ratio:.1f} ({summary.selectivity['max_min'].median:.1f})" in text
