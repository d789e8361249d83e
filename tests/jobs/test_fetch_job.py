"""The fetch job: a closed list of sets, and a clear end where there is no network."""

import socket
import typing

import pytest
from pydantic import ValidationError

from fmcore.config import settings
from fmcore.data import catalogue
from fmcore.data.outbound import Offline
from fmcore.store.store import Store
from jobs import JOBS, fetch


class Said:
    """A report that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def progress(self, fraction, message=""):
        self.lines.append((fraction, message))


def test_the_form_offers_every_set_that_can_be_downloaded_and_nothing_else():
    assert typing.get_args(fetch.Params.model_fields["dataset"].annotation) == catalogue.DOWNLOADABLE
    for wrong in ({"dataset": "demo"}, {"dataset": "../x"}, {"url": "http://127.0.0.1"}):
        with pytest.raises(ValidationError):
            fetch.Params(**wrong)


def test_the_job_runs_on_request_only():
    assert JOBS["fetch"] is fetch.JOB and fetch.JOB.kind == "light" and fetch.JOB.schedule is None


def test_without_a_network_the_run_ends_with_what_to_do(monkeypatch):
    def nowhere(*_args, **_more):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    store = Store(settings().home)
    try:
        with pytest.raises(Offline, match=r"raw\.githubusercontent\.com cannot be reached") as caught:
            fetch.JOB.run(store, fetch.Params(dataset="banking77"), Said())
    finally:
        store.close()
    assert "FM_DATA_DIR" in caught.value.hint and catalogue.dataset("banking77").state == "missing"
