"""The interface, without a server: what is on it for which model, and how errors are told."""

import logging

import pytest

from f2d.app.limits import Limits
from f2d.app.work import Work
from f2d.restorer import Restorer
from tests.nets.small import resflow_net

gr = pytest.importorskip("gradio", reason="needs gradio (pip install gradio)")

from f2d.app.page import _told, build  # noqa: E402


def labels(work: Work) -> list[str]:
    page = build(work, "a model", "", [])
    return [block.label for block in page.blocks.values() if isinstance(block, gr.Slider)]


def test_what_a_model_has_not_is_not_on_its_page(work, tmp_path):
    assert labels(work) == ["low light", "haze", "rain", "snow", "Steps"]
    assert labels(Work(Restorer(resflow_net()), Limits(), tmp_path)) == ["Steps"]


@pytest.mark.parametrize(
    "error, told", [(ValueError("a <b>: bad"), "a &lt;b&gt;: bad"), (FileNotFoundError("/secret"), "again")]
)
def test_what_a_person_did_is_told_as_it_is(error, told):
    def fail():
        raise error

    with pytest.raises(gr.Error) as caught:
        _told(fail)()
    assert told in caught.value.message and "/secret" not in caught.value.message
    assert not caught.value.print_exception


def test_what_the_server_did_is_told_without_its_reason_and_logged(caplog):
    def fail():
        raise OSError("/secret has no room")

    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as caught:
        _told(fail)()
    assert "server's fault" in caught.value.message.replace("&#x27;", "'") and "/secret" not in caught.value.message
    assert "/secret has no room" in caplog.text
