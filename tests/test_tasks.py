"""Tasks: what each is trained on, and that a data set of another task is refused."""

import pytest

from fmcore import tasks
from fmcore.data import catalogue
from fmcore.tasks import WrongDataset, check_fits, first_run


def test_there_is_a_task_for_customers_messages_and_two_for_news():
    assert list(tasks.TASKS) == ["intent", "sentiment", "topic"]
    assert tasks.TASKS["sentiment"].datasets == ("demo_sentiment", "financial_phrasebank")
    assert tasks.TASKS["topic"].datasets == ("demo_topic", "twitter_financial_topic")


@pytest.mark.parametrize("name", tasks.TASKS)
def test_the_first_run_of_a_task_is_quick_and_on_data_that_is_always_there(name):
    wanted = first_run(name)
    entry = catalogue.dataset(wanted["dataset"])
    assert entry.state == "built in" and entry.synthetic and wanted["fast"] and wanted["recipe"] == "linear"
    check_fits(name, wanted["dataset"], catalogue.load(wanted["dataset"]).labels)


def test_a_data_set_of_another_task_is_refused_with_what_would_do():
    with pytest.raises(WrongDataset, match="demo is for Customer-service intent, not for News sentiment") as caught:
        check_fits("sentiment", "demo", ("a", "b"))
    assert "financial_phrasebank" in caught.value.hint


def test_a_persons_own_data_may_teach_any_task_that_has_its_labels():
    check_fits("topic", "mine", ("a", "b"))
    check_fits("sentiment", "mine", ("positive", "negative", "neutral"))
    for labels in (("positive", "negative"), ("Positive", "negative", "neutral"), ("up", "down")):
        with pytest.raises(WrongDataset, match="negative, neutral, positive"):
            check_fits("sentiment", "mine", labels)


def test_an_unknown_task_is_refused_with_the_names_there_are():
    with pytest.raises(tasks.UnknownTask, match="intent, sentiment, topic"):
        check_fits("mood", "mine", ())
