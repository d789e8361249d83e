"""What holds for every data set of the catalogue."""

import pytest

from fmcore import tasks
from fmcore.data import catalogue

NAMES = [entry.name for entry in catalogue.datasets()]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_what_it_may_be_used_for(name):
    entry = catalogue.dataset(name)
    assert all((entry.title, entry.summary, entry.licence, entry.size, entry.columns, entry.source))
    assert entry.commercial_use in ("yes", "no", "unclear")


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_or_says_how_to_get_it(name):
    if catalogue.dataset(name).state == "missing":
        with pytest.raises(catalogue.DatasetMissing) as refusal:
            catalogue.load(name)
        assert "FM_DATA_DIR" in refusal.value.hint
    else:
        assert len(catalogue.load(name).train)


@pytest.mark.parametrize("name", NAMES)
def test_its_split_is_fixed_and_leaks_nothing(name, public_data):
    once, twice = catalogue.load(name), catalogue.load(name)
    assert once.split_hash == twice.split_hash
    folded = [{" ".join(t.lower().split()) for t in part.text} for part in (once.train, once.validation, once.test)]
    assert not folded[0] & folded[1]
    assert not folded[0] & folded[2]
    assert not folded[1] & folded[2]
    assert "oos" not in set(once.train.label)
    assert set(once.train.label) == set(once.labels)


def test_every_task_names_data_sets_of_the_catalogue():
    for task in tasks.TASKS.values():
        assert task.default_dataset in task.datasets
        assert set(task.datasets) <= set(NAMES)
