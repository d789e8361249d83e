"""The log is JSON lines without credentials."""

import json
import logging

import pytest

from fmcore import log


@pytest.fixture
def desk_log(tmp_path):
    log.set_up(tmp_path / "logs")
    yield tmp_path / "logs" / "desk.log"
    for handler in logging.getLogger("fm").handlers[:]:
        logging.getLogger("fm").removeHandler(handler)
        handler.close()


def test_each_record_is_one_json_line_with_its_traceback(desk_log):
    try:
        raise RuntimeError("boom\nsecond line")
    except RuntimeError:
        logging.getLogger("fm.test").exception("it broke")
    line = json.loads(desk_log.read_text())
    assert line["message"] == "it broke"
    assert "RuntimeError: boom" in line["error"]


@pytest.mark.parametrize(
    "leak",
    [
        "Authorization: Bearer abcdef123456",
        "token=abcdef123456",
        '"api_key": "abcdef123456"',
        "password=abcdef123456",
        "hf_abcdef123456",
        "Cookie: abcdef123456",
    ],
)
def test_credentials_are_redacted(desk_log, leak):
    logging.getLogger("fm.test").warning("request with %s failed", leak)
    assert "abcdef123456" not in desk_log.read_text()
