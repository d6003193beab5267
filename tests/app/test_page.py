"""The interface, without a server: what is on it for which model, and how errors are told."""

import logging
import warnings

import pytest

from f2d.app.limits import Limits
from f2d.app.work import Options, Work
from f2d.engine.restorer import Restorer
from tests.app.conftest import draw
from tests.nets.small import resflow_net

gr = pytest.importorskip("gradio", reason="needs gradio (pip install gradio)")

from f2d.app.page import _told, build  # noqa: E402


def blocks(work: Work, kind: type) -> list:
    return [block for block in build(work, "a model", "", []).blocks.values() if isinstance(block, kind)]


def flow(tmp_path) -> Work:
    return Work(Restorer(resflow_net()), Limits(), tmp_path)


def test_what_a_model_has_not_is_not_on_its_page(work, tmp_path):
    labels = [[block.label for block in blocks(each, gr.Slider)] for each in (work, flow(tmp_path))]
    assert labels == [["low light", "haze", "rain", "snow", "Steps"], ["Steps"]]


def test_every_sampler_of_the_page_takes_every_number_of_steps_of_it(work, tmp_path):
    for each in (work, flow(tmp_path)):
        (radio,) = blocks(each, gr.Radio)
        (steps,) = (block for block in blocks(each, gr.Slider) if block.label == "Steps")
        names = [name for _, name in radio.choices]
        assert radio.value in names
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name in names:
                for number in (steps.minimum, steps.maximum):
                    each.restore(draw(tmp_path, "dot.png"), Options(number, name))


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
