"""What holds for every data set of the catalogue."""

import pytest

from fmcore import tasks
from fmcore.data import catalogue

NAMES = [entry.name for entry in catalogue.datasets()]
LABELLED = [entry.name for entry in catalogue.datasets(use="classify")]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_what_it_may_be_used_for(name):
    entry = catalogue.dataset(name)
    assert all((entry.title, entry.summary, entry.licence, entry.size, entry.columns, entry.source))
    assert entry.commercial_use in ("yes", "no", "unclear")
    assert entry.use in catalogue.USES
    assert entry.synthetic == (entry.state == "built in") == ("Synthetic" in entry.summary)


@pytest.mark.parametrize("name", NAMES)
def test_where_it_comes_from_is_said_and_a_download_has_a_checksum(name):
    assert all(len(file.sha256) == 64 and file.url.startswith("https://") for file in catalogue.remote_files(name))
    said = catalogue.how_to_get(name)
    assert f"data fetch {name}" in said if name in catalogue.DOWNLOADABLE else "checksum" in said and "FM_DATA_DIR" in said


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_or_says_how_to_get_it(name):
    if catalogue.dataset(name).state == "missing":
        with pytest.raises(catalogue.DatasetMissing) as refusal:
            catalogue.load(name)
        assert "FM_DATA_DIR" in refusal.value.hint
    elif name in LABELLED:
        assert len(catalogue.load(name).train)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LABELLED)))
def test_a_set_without_labels_is_found_and_refused_to_who_wants_to_learn_from_it(name, public_data):
    entry = catalogue.dataset(name)
    assert entry.state == "local" and entry.path.is_dir() and entry.path.is_relative_to(public_data)
    with pytest.raises(catalogue.NotForClassification, match="no labelled texts"):
        catalogue.load(name)


@pytest.mark.parametrize("name", LABELLED)
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
        assert set(task.datasets) <= set(LABELLED)
