"""What holds for every line of JOBS, so that a new job is tested the moment its line exists."""

import json

import pydantic
import pytest
from apscheduler.triggers.cron import CronTrigger

from fmcore import clock
from jobs import JOBS


@pytest.fixture(params=JOBS.values(), ids=list(JOBS))
def job(request):
    return request.param


def test_its_name_is_its_key_and_it_says_what_it_does(job):
    assert JOBS[job.name] is job
    assert job.title
    assert job.summary.endswith(".")


def test_it_has_the_functions_of_its_kind(job):
    needed = (job.run,) if job.kind == "light" else (job.prepare, job.work, job.land)
    assert all(callable(function) for function in needed)


def test_its_form_explains_every_field_has_defaults_and_refuses_strangers(job):
    assert all(field.description for field in job.params.model_fields.values())
    job.params()
    with pytest.raises(pydantic.ValidationError):
        job.params(no_such_parameter=1)


def test_its_parameters_survive_the_store(job):
    assert job.params(**json.loads(job.params().model_dump_json())) == job.params()


def test_its_schedule_is_cron_in_utc_and_its_scheduled_parameters_fit(job):
    if job.schedule is not None:
        assert CronTrigger.from_crontab(job.schedule, timezone=clock.UTC).get_next_fire_time(None, clock.now()) > clock.now()
    job.params(**job.scheduled_params)


def test_it_cannot_run_for_ever(job):
    assert 0 < job.timeout_s <= 24 * 3600
    assert 1 <= job.max_attempts <= 4
