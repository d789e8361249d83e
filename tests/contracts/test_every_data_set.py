"""What holds for every data set of the catalogue."""

import pytest

from fmcore import tasks
from fmcore.data import catalogue, interaction_files
from fmcore.data.interactions import leave_one_out

NAMES = [entry.name for entry in catalogue.datasets()]
LABELLED = [entry.name for entry in catalogue.datasets(use="classify")]
RECOMMEND = [entry.name for entry in catalogue.datasets(use="recommend")]


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
    if entry.state == "missing":
        pytest.skip(f"{name} is not on this machine")
    assert entry.path.is_dir() and (entry.synthetic or (entry.state == "local" and entry.path.is_relative_to(public_data)))
    with pytest.raises(catalogue.NotForClassification, match="no labelled texts") as refusal:
        catalogue.load(name)
    assert catalogue.USES[entry.use] in refusal.value.message


@pytest.mark.parametrize("name", RECOMMEND)
def test_a_set_for_recommendations_loads_or_says_how_to_get_it(name, public_data):
    if catalogue.dataset(name).state == "missing":
        with pytest.raises(catalogue.DatasetMissing, match="FM_DATA_DIR"):
            interaction_files.load(name)
        return
    once, twice = interaction_files.load(name), interaction_files.load(name)
    assert once.name == name and once.split_hash == twice.split_hash and once.synthetic == catalogue.dataset(name).synthetic
    assert len(once.items) == len(once.titles) == len(once.texts) == len(set(once.items)) and all(once.titles)
    assert len(once.users) == len(set(once.users)) and once.rows["user"].nunique() == len(once.users)
    assert once.licence == catalogue.dataset(name).licence


@pytest.mark.parametrize("name", RECOMMEND)
def test_its_leave_one_out_split_leaks_nothing(name, public_data):
    if catalogue.dataset(name).state == "missing":
        pytest.skip(f"{name} is not on this machine")
    data = interaction_files.load(name)
    split = leave_one_out(data.histories())
    moments = data.rows.groupby("user")["at"].agg(list)
    for past, validation, test, at in zip(split.train, split.validation, split.test, moments, strict=True):
        assert at == sorted(at)
        if test >= 0:
            assert len({*past.tolist(), int(validation), int(test)}) == len(past) + 2 == len(at)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(RECOMMEND)))
def test_any_other_set_is_refused_to_who_wants_to_recommend_from_it(name, public_data):
    if catalogue.dataset(name).state != "missing":
        with pytest.raises(catalogue.BadData, match="no interactions"):
            interaction_files.load(name)


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
